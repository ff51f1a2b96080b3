//! `dssflow plan bootstrap --iam-policy`: the IAM policies of a site's principals. Looks at nothing but the site.

use dssflow_workflows::Site;
use dssflow_workflows::permissions::{MANAGED_POLICY_LIMIT, Principal, needed_by, policy, principals, size};
use serde_json::{Map, Value};

use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::suggest;
use crate::ui::Ui;

/// Prints the policy of `who`, or of everybody when it is `all`.
///
/// # Errors
/// When the site has no such principal.
pub(crate) fn print(ui: &Ui, site: &Site, who: &str) -> CommandResult {
    let known = principals(site);
    if who == "all" {
        let mut all = Map::new();
        for principal in &known {
            all.insert(principal.to_string(), of(ui, site, principal));
        }
        ui.json(&Value::Object(all), true);
        return Ok(Exit::Ok);
    }
    let names: Vec<String> = known.iter().map(ToString::to_string).collect();
    let Some(at) = names.iter().position(|name| name == who) else {
        let error = CommandError::new(Code::Usage, format!("the site has no principal {who}"));
        let error = match suggest::nearest(who, names.iter().map(String::as_str)) {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error,
        };
        return Err(error.hint(format!("it has: {}", names.join(", "))));
    };
    ui.json(&of(ui, site, &known[at]), true);
    Ok(Exit::Ok)
}

fn of(ui: &Ui, site: &Site, principal: &Principal) -> Value {
    let made = policy(&needed_by(site, principal));
    let size = size(&made);
    if size > MANAGED_POLICY_LIMIT {
        ui.note(&format!(
            "the policy of {principal} has {size} characters, IAM takes {MANAGED_POLICY_LIMIT} in a managed policy: split \
             its statements over two"
        ));
    }
    made
}
