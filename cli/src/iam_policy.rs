//! `dssflow plan bootstrap --iam-policy`: the IAM policies of a site's principals. Looks at nothing but the site.

use dssflow_workflows::Site;
use dssflow_workflows::permissions::{
    Document, MANAGED_POLICY_LIMIT, MAX_ATTACHED_POLICIES, Principal, policies,
};
use serde_json::Value;

use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::suggest;
use crate::ui::Ui;

/// Prints the policy of `who`, or of everybody when it is `all`. A principal whose policy is too large for IAM has it in
/// several documents; each of them can be asked for by its name.
///
/// # Errors
/// When the site has no such principal.
pub(crate) fn print(ui: &Ui, site: &Site, who: &str) -> CommandResult {
    let known = policies(site);
    if who == "all" {
        for (principal, documents) in &known {
            tell(ui, principal, documents);
        }
        ui.json(&by_name(known.into_iter().flat_map(|(_, documents)| documents)), true);
        return Ok(Exit::Ok);
    }
    let mut names = Vec::new();
    for (principal, documents) in known {
        let name = principal.to_string();
        if name == who {
            tell(ui, &principal, &documents);
            match <[Document; 1]>::try_from(documents) {
                Ok([only]) => ui.json(&only.policy, true),
                Err(several) => ui.json(&by_name(several), true),
            }
            return Ok(Exit::Ok);
        }
        names.push(name);
        for document in documents {
            if document.name == who {
                ui.json(&document.policy, true);
                return Ok(Exit::Ok);
            }
            if !names.contains(&document.name) {
                names.push(document.name);
            }
        }
    }
    let error = CommandError::new(Code::Usage, format!("the site has no principal {who}"));
    let error = match suggest::nearest(who, names.iter().map(String::as_str)) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error,
    };
    Err(error.hint(format!("it has: {}", names.join(", "))))
}

fn by_name(documents: impl IntoIterator<Item = Document>) -> Value {
    documents.into_iter().map(|document| (document.name, document.policy)).collect()
}

/// Says that a policy comes in parts, and when there are more of them than IAM attaches.
fn tell(ui: &Ui, principal: &Principal, documents: &[Document]) {
    let n = documents.len();
    if n == 1 {
        return;
    }
    let names: Vec<&str> = documents.iter().map(|document| document.name.as_str()).collect();
    let mut text = format!(
        "the policy of {principal} is over the {MANAGED_POLICY_LIMIT} characters of a managed policy: it comes as {n} \
         documents, all of which are needed: {}",
        names.join(", ")
    );
    if n > MAX_ATTACHED_POLICIES {
        put!(
            text,
            "; IAM attaches {MAX_ATTACHED_POLICIES} to a user or role unless the quota \"Managed policies attached to an \
             IAM role\" is raised"
        );
    }
    ui.note(&text);
}
