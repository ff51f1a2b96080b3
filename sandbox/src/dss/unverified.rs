//! Spellings nobody outside could verify: the fake had to choose, and this is the whole list.
//!
//! The bootstrap's default overlays use the same names. Against a real DSS an operator captures the true ones
//! once (set the option by hand, read the object back) and puts them into the overlay of the spec; the fake
//! drops what is not listed here just as a real DSS drops what it does not know.

/// `metastoreCatalogsSettings.synchronizeTo.flavor` for the Glue catalog.
pub const GLUE_FLAVOR: &str = "GLUE";
/// `metastoreCatalogsSettings.synchronizeTo.glueCredentialsMode` for credentials of a connection.
pub const GLUE_CREDENTIALS_MODE: &str = "CONNECTION";
/// Key beside it that names the S3 connection.
pub const GLUE_CONNECTION: &str = "glueConnection";
/// `params.metastoreSynchronizationMode` of an S3 connection that synchronises its datasets.
pub const S3_SYNC_MODE: &str = "KEEP_IN_SYNC";
/// Key in the S3 connection's `params` that names the Glue database.
pub const S3_SYNC_DATABASE: &str = "metastoreDatabaseName";
/// Key in the S3 connection's `params` that names its Athena connection.
pub const S3_ATHENA_CONNECTION: &str = "athenaConnection";
/// Keys in the Athena connection's `params`.
pub const ATHENA_PARAMS: &[&str] = &[
    "region",
    "s3OutputLocation",
    "workgroup",
    "catalog",
    "database",
    "credentialsMode",
    ATHENA_S3_CONNECTION,
    "driverVersion",
    "driverJarsDirectory",
    "properties",
    "dkuProperties",
    "namingRule",
];
/// Key that names the S3 connection whose credentials Athena uses.
pub const ATHENA_S3_CONNECTION: &str = "s3Connection";
/// `params.credentialsMode` of an Athena connection that takes them from an S3 connection.
pub const ATHENA_CREDENTIALS_MODE: &str = "FROM_S3_CONNECTION";
/// The login route of the web interface, form fields `login` and `password`: 200 when they match, 401 when not.
pub const LOGIN_PATH: &str = "/dip/api/login";
