//! Pushes of the fake DSS to ECR: the image appears in the emulator under the digest the host's Docker gave it.
//!
//! There are no layers and no `/v2/` data plane; a repository is never created here, because who may do that is what
//! the bootstrap has to get right.

use serde_json::json;

use crate::aws::{ACCOUNT, Aws};
use crate::dss::backend::{BoxFuture, ImageBackend};

/// Pushes with the service user's keys.
#[derive(Debug)]
pub(crate) struct Ecr {
    aws: Aws,
}

impl Ecr {
    pub(crate) fn new(proxy: &str, access_key: &str) -> Self {
        Self { aws: Aws::new(proxy, access_key) }
    }

    async fn push(&self, repository: &str, tag: &str, digest: &str) -> Result<(), String> {
        let target = |operation: &str| format!("AmazonEC2ContainerRegistry_V20150921.{operation}");
        let login = self.aws.json("ecr", &target("GetAuthorizationToken"), &json!({})).await;
        login.map_err(|error| format!("docker login: {error}"))?;
        // A manifest of its own for each digest, so that moto keeps two images apart; the digest is the host's.
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": { "mediaType": "application/vnd.docker.container.image.v1+json", "size": 7023, "digest": digest },
            "layers": [],
        });
        let body = json!({ "registryId": ACCOUNT, "repositoryName": repository, "imageTag": tag,
                           "imageManifest": manifest.to_string(), "imageDigest": digest,
                           "imageManifestMediaType": "application/vnd.docker.distribution.manifest.v2+json" });
        match self.aws.json("ecr", &target("PutImage"), &body).await {
            Ok(_) => Ok(()),
            // The very same image under the very same tag: a push has nothing to do.
            Err(error) if error.to_string().contains("ImageAlreadyExistsException") => Ok(()),
            Err(error) if error.to_string().contains("RepositoryNotFoundException") => Err(format!(
                "name unknown: The repository with name '{repository}' does not exist in the registry with id '{ACCOUNT}'"
            )),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl ImageBackend for Ecr {
    fn push(&self, repository: String, tag: String, digest: String) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { self.push(&repository, &tag, &digest).await })
    }
}
