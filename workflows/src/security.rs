//! What a site leaves open between the users of DSS and the AWS credentials that are to be private, in words.
//!
//! The reference architecture promises that the service user's keys are not accessible to users of DSS. File modes keep
//! other accounts of the host out; code of DSS users runs as the service user itself unless user isolation is on. What
//! is not so is said where people look: in the banner, in the closing summary, in the docs.

use crate::site::{Credentials, Site};

/// What is not private although it should be, one line each; empty when nothing is known to be open.
pub fn security_notes(site: &Site) -> Vec<String> {
    let user = &site.host.service_user;
    let mut notes = Vec::new();
    let keys_on_host = match site.service_credentials.as_ref().and_then(|set| site.credentials.get(set)) {
        None | Some(Credentials::InstanceRole {}) => false,
        Some(Credentials::AssumeRole { source, .. }) => source
            .as_ref()
            .is_some_and(|s| !matches!(site.credentials.get(s), Some(Credentials::InstanceRole {}))),
        Some(_) => true,
    };
    if keys_on_host && !site.dss.user_isolation {
        notes.push(format!(
            "code of DSS users runs as {user} and can read the AWS keys in its ~/.aws; dss.user_isolation: true keeps it out"
        ));
    }
    if !keys_on_host {
        notes.push(format!(
            "the instance's role serves {user}: every process on the host can have it, code of DSS users as well, also with \
             user isolation; a service_credentials set with user isolation keeps it out"
        ));
    }
    if !site.host.protect_metadata {
        notes.push(
            "instance metadata is left as it is (host.protect_metadata: false): containers on the host may have the \
             instance's role"
                .to_owned(),
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../examples/site.yaml");

    fn notes(change: impl Fn(&mut Site)) -> Vec<String> {
        let mut site = crate::parse(EXAMPLE, "site.yaml").unwrap_or_else(|e| panic!("{e}"));
        change(&mut site);
        security_notes(&site)
    }

    #[test]
    fn what_is_open_is_said_and_nothing_else() {
        assert!(notes(|_| {})[0].contains("can read the AWS keys"));
        assert_eq!(notes(|s| s.dss.user_isolation = true), Vec::<String>::new());
        let role = notes(|s| {
            s.service_credentials = None;
            s.dss.user_isolation = true;
        });
        assert!(role.len() == 1 && role[0].contains("instance's role serves"), "{role:?}");
        assert_eq!(notes(|s| s.host.protect_metadata = false).len(), 2);
    }
}
