//! The names of the host activities, which their crate registers without constants. A test looks each up.

pub(super) const FACTS: &str = "host.facts";
pub(super) const PACKAGES: &str = "host.packages";
pub(super) const DOCKER: &str = "host.docker";
pub(super) const TOOL: &str = "host.tool";
pub(super) const AWS_CLI: &str = "host.aws-cli";
pub(super) const SERVICE_USER: &str = "host.service-user";
pub(super) const LIMITS: &str = "host.limits";
pub(super) const AWS_CREDENTIALS: &str = "host.aws-credentials";
pub(super) const KIT: &str = "host.kit";
pub(super) const UNPACK: &str = "host.unpack";
pub(super) const INSTALL_DEPS: &str = "host.install-deps";
pub(super) const INSTALL_DSS: &str = "host.install-dss";
pub(super) const ENV_SITE: &str = "host.env-site";
pub(super) const INTEGRATION: &str = "host.integration";
pub(super) const BASE_IMAGE: &str = "host.base-image";
pub(super) const BOOT: &str = "host.boot";
pub(super) const LICENSE: &str = "host.license";
pub(super) const DSS_START: &str = "host.dss-start";
pub(super) const API_KEY: &str = "host.api-key";
pub(super) const ATHENA_DRIVER: &str = "host.athena-driver";
