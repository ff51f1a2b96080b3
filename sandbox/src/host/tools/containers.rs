//! `docker`: local images in one JSON file; the daemon is the `docker` service.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::super::root::HostRoot;
use super::super::{Call, ToolResult, admin, read_stdin, refuse};

const IMAGES: &str = "/var/lib/docker/images.json";
const LOCK: &str = "/var/lib/docker/lock";

/// A local image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Image {
    pub(in super::super) repository: String,
    pub(in super::super) tag: String,
    pub(in super::super) digest: String,
}

pub(in super::super) fn images(root: &HostRoot) -> Vec<Image> {
    root.read(IMAGES).and_then(|t| serde_json::from_str(&t).ok()).unwrap_or_default()
}

/// Adds an image and returns it; the digest follows from the name, so a rebuild is the same image.
pub(super) fn build(root: &HostRoot, repository: &str, tag: &str) -> std::io::Result<Image> {
    let _lock = root.lock(LOCK)?;
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(format!("{repository}:{tag}"))));
    let image = Image { repository: repository.to_owned(), tag: tag.to_owned(), digest };
    let mut all: Vec<Image> =
        images(root).into_iter().filter(|i| i.repository != repository || i.tag != tag).collect();
    all.push(image.clone());
    root.write(IMAGES, serde_json::to_vec_pretty(&all)?)?;
    Ok(image)
}

/// Whether the caller can reach the Docker daemon; the refusal is Docker's.
pub(super) fn reachable(call: &Call) -> Result<(), super::super::Refusal> {
    if !call.root.is_active("docker.service") {
        return refuse(
            1,
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
        );
    }
    if !call.is_root() && !call.root.in_group(&call.user, "docker") {
        return refuse(
            1,
            "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
        );
    }
    Ok(())
}

fn login_file(call: &Call) -> String {
    let home = call.root.user(&call.user).map_or_else(|| "/root".to_owned(), |u| u.home);
    format!("{home}/.docker/config.json")
}

/// `docker VERB ...`
pub(super) fn docker(call: &mut Call) -> ToolResult {
    let verb = call.argv.get(1).cloned().unwrap_or_default();
    if verb == "--version" {
        call.print("Docker version 26.1.3, build b72abbb");
        return Ok(0);
    }
    reachable(call)?;
    match verb.as_str() {
        "version" => {
            call.print("26.1.3");
            Ok(0)
        }
        "info" => {
            call.print("Server:\n Server Version: 26.1.3\n Storage Driver: overlay2");
            Ok(0)
        }
        "images" => {
            let wanted = call.argv.last().filter(|a| !a.starts_with('-') && !a.contains('{')).cloned();
            for image in images(&call.root) {
                let name = format!("{}:{}", image.repository, image.tag);
                if wanted.as_ref().is_none_or(|w| *w == "images" || *w == image.repository || *w == name) {
                    // Of the columns of a format the id is known.
                    let with_id = call.argv.iter().any(|a| a.contains("{{.ID}}"));
                    call.print(if with_id { format!("{name} {}", image.digest) } else { name });
                }
            }
            Ok(0)
        }
        "rmi" => {
            let names: Vec<String> =
                call.args().into_iter().skip(1).filter(|a| !a.starts_with('-')).map(str::to_owned).collect();
            let _lock = call.root.lock(LOCK)?;
            for name in names {
                let all = images(&call.root);
                let kept: Vec<Image> =
                    all.iter().filter(|i| format!("{}:{}", i.repository, i.tag) != name).cloned().collect();
                if kept.len() == all.len() {
                    return refuse(1, format!("Error response from daemon: No such image: {name}"));
                }
                call.root.write(IMAGES, serde_json::to_vec_pretty(&kept)?)?;
                // DSS looks for its base images among those of the host.
                if let Some((repository, tag)) = name.rsplit_once(':') {
                    let body = serde_json::json!({"repository": repository, "tag": tag});
                    drop(admin::call(&call.config, "DELETE", "/dss/base-images", &body));
                }
                call.print(format!("Untagged: {name}"));
            }
            Ok(0)
        }
        "login" => {
            if !call.has("--password-stdin") {
                return refuse(1, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
            }
            if read_stdin().is_empty() {
                return refuse(1, "Error: Password Required");
            }
            let registry = call.argv.last().cloned().unwrap_or_default();
            let file = login_file(call);
            call.root.write(&file, serde_json::to_vec(&serde_json::json!({"auths": {registry: {}}}))?)?;
            call.print("Login Succeeded");
            Ok(0)
        }
        "logout" => {
            let file = login_file(call);
            call.root.remove(&file);
            Ok(0)
        }
        "push" => {
            let name = call.argv.last().cloned().unwrap_or_default();
            let registry = name.split('/').next().unwrap_or_default();
            if !call.root.read(&login_file(call)).is_some_and(|t| t.contains(registry)) {
                return refuse(1, "no basic auth credentials");
            }
            call.work(1.0);
            call.print(format!("{name}: pushed"));
            Ok(0)
        }
        other => refuse(1, format!("docker: '{other}' is not a docker command of the sandbox.")),
    }
}
