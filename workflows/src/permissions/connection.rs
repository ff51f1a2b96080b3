//! The key or role of an S3 connection: its data, its Glue database, and Athena when it has a pair.
//!
//! Pages: <https://doc.dataiku.com/dss/latest/connecting/s3.html>,
//! <https://doc.dataiku.com/dss/latest/connecting/sql/athena.html>,
//! <https://docs.aws.amazon.com/athena/latest/ug/security-iam-athena.html>

use super::{Arns, Conditions, Permission, Principal, actions};
use crate::site::{Connection, Site};

const GLUE_READ: [&str; 9] = [
    "BatchGetPartition",
    "GetCatalogImportStatus",
    "GetDatabase",
    "GetDatabases",
    "GetPartition",
    "GetPartitions",
    "GetTable",
    "GetTables",
    "GetTableVersions",
];

const GLUE_WRITE: [&str; 10] = [
    "BatchCreatePartition",
    "BatchDeletePartition",
    "BatchUpdatePartition",
    "CreateDatabase",
    "CreatePartition",
    "CreateTable",
    "DeletePartition",
    "DeleteTable",
    "UpdatePartition",
    "UpdateTable",
];

pub(super) fn needed(site: &Site, connection: &Connection) -> Vec<Permission> {
    let arns = Arns::of(site);
    let on = |actions: Vec<String>, resources: Vec<String>, why: &str| Permission {
        principal: Principal::Connection(connection.name.clone()),
        actions,
        resources,
        conditions: Conditions::new(),
        why: why.to_owned(),
    };
    let path = connection.path.trim_matches('/');
    let below = if path.is_empty() { "*".to_owned() } else { format!("{path}/*") };
    let mut needed = vec![
        on(
            actions("s3", &["GetBucketLocation", "ListBucket", "ListBucketMultipartUploads"]),
            vec![arns.s3(&connection.bucket)],
            "find the bucket and list what is in it",
        ),
        on(
            actions(
                "s3",
                &[
                    "AbortMultipartUpload",
                    "DeleteObject",
                    "GetObject",
                    "ListMultipartUploadParts",
                    "PutObject",
                ],
            ),
            vec![arns.s3(&format!("{}/{below}", connection.bucket))],
            "read and write datasets",
        ),
        on(
            [actions("glue", &GLUE_READ), actions("glue", &GLUE_WRITE)].concat(),
            arns.glue(&connection.glue_database),
            "synchronise datasets to the Glue database",
        ),
    ];
    // DSS talks to Glue with one connection's credentials, for the datasets of all.
    if site.glue_connection().is_some_and(|glue| glue.name == connection.name) {
        for other in site.connections.iter().filter(|c| c.name != connection.name) {
            needed.push(on(
                [actions("glue", &GLUE_READ), actions("glue", &GLUE_WRITE)].concat(),
                arns.glue(&other.glue_database),
                "the metastore of all connections uses these credentials",
            ));
        }
    }
    if let Some(athena) = &connection.athena {
        needed.push(on(
            actions(
                "athena",
                &[
                    "GetQueryExecution",
                    "GetQueryResults",
                    "GetQueryResultsStream",
                    "GetWorkGroup",
                    "StartQueryExecution",
                    "StopQueryExecution",
                ],
            ),
            vec![arns.regional("athena", &format!("workgroup/{}", athena.workgroup))],
            "queries through Athena",
        ));
        needed.push(on(
            actions(
                "athena",
                &["GetDataCatalog", "GetDatabase", "GetTableMetadata", "ListDatabases", "ListTableMetadata"],
            ),
            vec![arns.regional("athena", "datacatalog/AwsDataCatalog")],
            "what Athena can query",
        ));
        needed.push(on(
            actions("athena", &["ListDataCatalogs", "ListWorkGroups"]),
            vec!["*".to_owned()],
            "lists in Athena, which know no narrower right",
        ));
        // The driver asks for the database `default` whatever the query is about.
        needed.push(on(
            actions("glue", &GLUE_READ),
            arns.glue("default"),
            "Athena looks at the database `default`",
        ));
        let (bucket, prefix) = location(&athena.output_location);
        let below = if prefix.is_empty() { "*".to_owned() } else { format!("{prefix}/*") };
        needed.push(on(
            actions("s3", &["GetBucketLocation", "ListBucket", "ListBucketMultipartUploads"]),
            vec![arns.s3(bucket)],
            "where Athena puts results",
        ));
        needed.push(on(
            actions("s3", &["AbortMultipartUpload", "GetObject", "ListMultipartUploadParts", "PutObject"]),
            vec![arns.s3(&format!("{bucket}/{below}"))],
            "results of Athena",
        ));
    }
    needed
}

/// Bucket and path of `s3://bucket/path/`.
fn location(url: &str) -> (&str, &str) {
    let rest = url.trim_start_matches("s3://");
    let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
    (bucket, path.trim_matches('/'))
}
