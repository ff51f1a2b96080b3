//! P34: base images are those of the DSS version.
//!
//! After each upgrade of DSS all base images must be built anew. Their tag and the input of their steps carry the
//! version, so a run builds them again by itself; what is looked at here is that this holds, and what is there.

use super::Notes;
use super::look::Look;
use super::spec::Spec;
use crate::host::HostUser;

/// P34.
pub(super) async fn images(look: &Look, notes: &mut Notes) {
    let installed = match look.host() {
        Some(host) if look.root().await.is_ok() => {
            let file = format!("{}/dss-version.json", look.spec.data_dir.trim_end_matches('/'));
            host.read_file(&HostUser::Root, &file).await.ok().flatten().and_then(|bytes| version(&bytes))
        }
        _ => None,
    };
    judge(&look.spec, installed.as_deref(), notes);
}

/// The version in a data directory's `dss-version.json`.
fn version(bytes: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    Some(value.get("product_version")?.as_str()?.to_owned())
}

fn judge(spec: &Spec, installed: Option<&str>, notes: &mut Notes) {
    let (wanted, tag) = (&spec.dss_version, &spec.image_tag);
    if !tag.contains(wanted.as_str()) {
        notes.error(
            "images",
            format!("the tag {tag} of the base images does not carry DSS version {wanted}: images of another version would be taken for these"),
            format!("tag them dss-{wanted}"),
        );
    }
    match installed {
        Some(installed) if installed != wanted => notes.warning(
            &spec.data_dir,
            format!("DSS {installed} is installed there, the site says {wanted}: after an upgrade all base images must be built anew"),
            format!("nothing to do for the images: the steps image-container-exec and image-spark build dss-{wanted}; plan the upgrade of DSS itself"),
        ),
        Some(installed) => notes.seen(format!("DSS {installed} is installed, images are tagged {tag}")),
        None => notes.seen(format!("images are tagged {tag}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CHECKS, Finding, Severity};
    use super::*;

    fn found(tag: &str, installed: Option<&str>) -> Option<Finding> {
        let spec = Spec { dss_version: "14.2.0".into(), image_tag: tag.into(), ..Spec::default() };
        let mut notes = Notes::of(&CHECKS[0]);
        judge(&spec, installed, &mut notes);
        notes.findings.pop()
    }

    #[test]
    fn p34_images_of_another_version_are_told() {
        assert_eq!(found("dss-14.2.0", None), None);
        assert_eq!(found("dss-14.2.0", Some("14.2.0")), None);
        assert_eq!(found("latest", None).unwrap().severity, Severity::Error);
        let upgrade = found("dss-14.2.0", Some("14.1.3")).unwrap();
        assert!(upgrade.severity == Severity::Warning && upgrade.evidence.contains("14.1.3"), "{upgrade:?}");
        assert_eq!(version(br#"{"product_version": "14.2.0"}"#).as_deref(), Some("14.2.0"));
    }
}
