//! Whole files in, problems out.

use super::*;

const EXAMPLE: &str = include_str!("../../examples/site.yaml");
const EXAMPLE_SDK: &str = include_str!("../../examples/site-sdk.yaml");

/// The example with some text replaced; every piece must be there.
fn changed(changes: &[(&str, &str)]) -> String {
    let mut text = EXAMPLE.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from:?} is not in the example");
        text = text.replacen(from, to, 1);
    }
    text
}

/// Code and path of every problem.
fn problems(text: &str) -> Vec<(&'static str, String)> {
    let errors = parse(text, "site.yaml").expect_err("the file is wrong");
    errors.problems.into_iter().map(|p| (p.code, p.path)).collect()
}

#[test]
fn the_shipped_examples_are_right() {
    let site = parse(EXAMPLE, "site.yaml").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(site.cluster.mode, ClusterMode::DssPlugin);
    assert_eq!(site.registry_url(), "123456789012.dkr.ecr.eu-west-1.amazonaws.com/dss");
    let site = parse(EXAMPLE_SDK, "site-sdk.yaml").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(site.cluster.mode, ClusterMode::Sdk);
}

#[test]
fn a_site_survives_json() {
    for text in [EXAMPLE, EXAMPLE_SDK] {
        let site = parse(text, "x").unwrap();
        let json = serde_json::to_value(&site).unwrap();
        assert_eq!(serde_json::from_value::<Site>(json).unwrap(), site);
    }
}

#[test]
fn all_problems_are_told_in_one_go() {
    let text = changed(&[
        ("service_user: dssuser", "sevice_user: dssuser"),
        ("    - subnet-0b2c3d4e5f60718a2\n", ""),
        ("    credentials: sales", "    credentials: sails"),
        ("secret_access_key: { env: OPS_SECRET_ACCESS_KEY }", "secret_access_key: wJalrXUtnFEMI/K7MDENG"),
    ]);
    let errors = parse(&text, "site.yaml").unwrap_err();
    let found: Vec<_> = errors.problems.iter().map(|p| (p.code, p.path.as_str())).collect();
    assert_eq!(
        found,
        [
            (codes::UNKNOWN_KEY, "host.sevice_user"),
            (codes::PLAINTEXT_SECRET, "credentials.ops.secret_access_key"),
            (codes::UNKNOWN_REFERENCE, "connections[0].credentials"),
            (codes::TOO_FEW_SUBNETS, "cluster.subnets"),
        ]
    );
    assert!(errors.problems.iter().all(|p| p.line.is_some_and(|l| l > 1) && !p.help.is_empty()), "{errors}");
    assert!(errors.problems[0].help.contains("`service_user`"), "{errors}");
    assert!(errors.problems[2].help.contains("`sales`"), "{errors}");
    assert!(!errors.to_string().contains("wJalr"), "a secret is never repeated");
}

#[test]
fn single_problems() {
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);
    let cases: &[Case<'_>] = &[
        (&[("region: eu-west-1", "region: Ireland")], codes::WRONG_VALUE, "region"),
        (&[("region: eu-west-1\n", "")], codes::MISSING_KEY, "region"),
        (&[("region: eu-west-1", "region:")], codes::MISSING_KEY, "region"),
        (&[("region: eu-west-1", "region: eu-west-1\nregion: eu-west-2")], codes::DUPLICATE, "region"),
        (&[("k8s_version: \"1.33\"", "k8s_version: 1.33")], codes::WRONG_VALUE, "cluster.k8s_version"),
        (&[("mode: dss-plugin", "mode: dss-plugn")], codes::WRONG_VALUE, "cluster.mode"),
        (
            &[(
                "mode: dss-plugin",
                "mode: dss-plugin\n  roles: { node: \"arn:aws:iam::123456789012:role/n\" }",
            )],
            codes::UNSUPPORTED,
            "cluster.roles.node",
        ),
        (
            &[("  sales:\n    kind: static", "  sales:\n    kind: sttic")],
            codes::WRONG_VALUE,
            "credentials.sales.kind",
        ),
        (&[("version: \"14.2.0\"", "version: \"14.1.1\"")], codes::UNSUPPORTED, "athena_driver.version"),
        (&[("- name: s3-marketing", "- name: S3-Sales")], codes::DUPLICATE, "connections[1].name"),
        (&[("bucket: acme-sales", "bucket: s3://acme-sales")], codes::WRONG_VALUE, "connections[0].bucket"),
        (
            &[("glue_database: sales", "glue_database: sales-raw")],
            codes::WRONG_VALUE,
            "connections[0].glue_database",
        ),
        (
            &[("usable_by: [analysts]", "usable_by: [analyst]")],
            codes::UNKNOWN_REFERENCE,
            "connections[0].usable_by[0]",
        ),
        (&[("num_nodes: 3", "num_nodes: 9")], codes::WRONG_VALUE, "cluster.node_pool.max_nodes"),
        (&[("transport: local", "transport: ssh\n  user: ec2-user")], codes::MISSING_KEY, "host.address"),
        (&[("  instance: i-0a1b2c3d4e5f60718\n", "")], codes::MISSING_KEY, "host.instance"),
        (
            &[(
                "instance: i-0a1b2c3d4e5f60718",
                "instance: i-0a1b2c3d4e5f60718\n  launch: { subnet: subnet-0a1b2c3d }",
            )],
            codes::UNSUPPORTED,
            "host.launch",
        ),
        (
            &[("instance: i-0a1b2c3d4e5f60718", "launch: { disk_gb: 200 }")],
            codes::MISSING_KEY,
            "host.launch.subnet",
        ),
        (
            &[(
                "instance: i-0a1b2c3d4e5f60718",
                "launch: { subnet: subnet-0a1b2c3d, key_name: k, public_key: ssh-ed25519 \
                 AAAAC3NzaC1lZDI1NTE5AAAAIPXh0Zk3mWm5c0zY9bq1a2b3c4d5e6f7a8b9c0d1e2f3 }",
            )],
            codes::UNSUPPORTED,
            "host.launch.public_key",
        ),
        (
            &[(
                "instance: i-0a1b2c3d4e5f60718",
                "launch: { subnet: subnet-0a1b2c3d, user_data: \"export AWS_SECRET_ACCESS_KEY=hush\" }",
            )],
            codes::WRONG_VALUE,
            "host.launch.user_data",
        ),
        (
            &[("api_key: { sink: { file: /etc/dssflow/dss-api-key } }", "api_key: dkuaps-XYZ")],
            codes::PLAINTEXT_SECRET,
            "dss.api_key",
        ),
        (
            &[("sink: { file: /etc/dssflow/dss-api-key }", "sink: { env: KEY }")],
            codes::UNKNOWN_KEY,
            "dss.api_key.sink.env",
        ),
        (
            &[("license: { file: /etc/dssflow/license.json }", "license: { file: license.json }")],
            codes::WRONG_VALUE,
            "dss.license.file",
        ),
        (
            &[("license: { file: /etc/dssflow/license.json }", "license: { file: /a, env: A }")],
            codes::WRONG_VALUE,
            "dss.license",
        ),
        (
            &[("license: { file: /etc/dssflow/license.json }", "license: { env: A, env: B }")],
            codes::DUPLICATE,
            "dss.license.env",
        ),
        (&[("data_dir: /data/dss", "data_dir: /opt/dataiku")], codes::UNSUPPORTED, "dss.data_dir"),
        (
            &[("source: store", "source: zip\n  url: https://x.example/p.zip")],
            codes::MISSING_KEY,
            "plugin.sha256",
        ),
    ];
    for (changes, code, path) in cases {
        assert_eq!(problems(&changed(changes)), [(*code, (*path).to_owned())], "{changes:?}");
    }
}

#[test]
fn a_url_without_a_checksum_is_refused() {
    let start = EXAMPLE.find("  kits:").unwrap();
    let sum = EXAMPLE[start..].find("      sha256:").unwrap() + start;
    let end = EXAMPLE[sum..].find('\n').unwrap() + sum + 1;
    let text = format!("{}{}", &EXAMPLE[..sum], &EXAMPLE[end..]);
    assert_eq!(problems(&text), [(codes::MISSING_KEY, "dss.kits.dss.sha256".to_owned())]);
}

#[test]
fn environment_credentials_cannot_serve_a_connection() {
    let text = changed(&[
        ("credentials:\n", "credentials:\n  env:\n    kind: environment\n"),
        ("credentials: sales", "credentials: env"),
    ]);
    assert_eq!(problems(&text), [(codes::UNSUPPORTED, "connections[0].credentials".to_owned())]);
}

#[test]
fn what_is_no_site_says_so() {
    for (text, code) in
        [("", codes::UNREADABLE), ("a: [", codes::UNREADABLE), ("just words", codes::WRONG_VALUE)]
    {
        assert_eq!(problems(text)[0].0, code, "{text:?}");
    }
    assert_eq!(problems(&"#".repeat(MAX_SITE_BYTES + 1)), [(codes::UNREADABLE, String::new())]);
}

/// Every key of the schema's top level stands in the shipped examples, so that people see all there is.
#[test]
fn the_examples_show_every_section_and_fit_the_schema() {
    let schema = schema();
    let site: serde_json::Value = serde_json::to_value(parse(EXAMPLE, "x").unwrap()).unwrap();
    let known = schema["properties"].as_object().unwrap();
    for key in site.as_object().unwrap().keys() {
        assert!(known.contains_key(key), "{key} is not in the schema");
    }
    for key in known.keys() {
        assert!(
            EXAMPLE.contains(&format!("\n{key}:")) || EXAMPLE.contains(&format!("\n# {key}:")),
            "{key} is not in the example"
        );
    }
    for key in schema["required"].as_array().unwrap() {
        assert!(site.get(key.as_str().unwrap()).is_some(), "{key} is required and missing");
    }
}

/// Whatever line is lost or spoilt: the file is refused with a path, or it is a site with a graph. Never a panic,
/// and never a site that the typed form refuses after all.
#[test]
fn a_lost_or_spoilt_line_is_told_or_harmless() {
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    let mut refused = 0;
    for ix in 0..lines.len() {
        let mut spoilt = vec![
            lines
                .iter()
                .enumerate()
                .filter(|(n, _)| *n != ix)
                .map(|(_, l)| *l)
                .collect::<Vec<_>>()
                .join("\n"),
        ];
        if let Some((key, _)) =
            lines[ix].split_once(": ").filter(|(key, _)| !key.trim_start().starts_with('#'))
        {
            for value in ["", " 7", " true", " [x]", " {x: y}"] {
                let line = format!("{key}:{value}");
                let text = lines.iter().enumerate().map(|(n, l)| if n == ix { line.as_str() } else { *l });
                spoilt.push(text.collect::<Vec<_>>().join("\n"));
            }
        }
        for text in spoilt {
            match parse(&text, "site.yaml") {
                // A pattern that fits no step is all that is left for the graph to refuse.
                Ok(site) => match crate::bootstrap(&site) {
                    Ok(workflow) => assert!(!workflow.graph.is_empty()),
                    Err(errors) => {
                        assert!(errors.problems[0].message.starts_with("no step"), "{errors}\n{text}");
                    }
                },
                Err(errors) => {
                    refused += 1;
                    let typed =
                        errors.problems.iter().any(|p| p.path.is_empty() && p.code == codes::WRONG_VALUE);
                    assert!(!typed, "the shape check missed something: {errors}\n{text}");
                }
            }
        }
    }
    assert!(refused > 300, "{refused}");
}

#[test]
fn credentials_fit_where_they_are_named() {
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);
    let role = "    kind: assume_role\n    role_arn: arn:aws:iam::123456789012:role/dss-marketing-data\n";
    let with = |more: &str| format!("{role}{more}");
    let (source, loops, token, external) = (
        with("    source: nobody\n"),
        with("    source: marketing\n"),
        "kind: static\n    session_token: { env: T }\n    access_key_id: { secrets_manager: dss/sales",
        with("    external_id: acme-1\n"),
    );
    let cases: &[Case<'_>] = &[
        // Private credentials stay private, by name and by the key itself.
        (
            &[("    credentials: sales\n", "    credentials: ops\n")],
            codes::SHARED_CREDENTIALS,
            "connections[0].credentials",
        ),
        (
            &[(
                "access_key_id: { secrets_manager: dss/sales, key: access_key_id }",
                "access_key_id: { env: OPS_ACCESS_KEY_ID }",
            )],
            codes::SHARED_CREDENTIALS,
            "connections[0].credentials",
        ),
        (
            &[("# aws:\n#   credentials: ops", "aws:\n  credentials: sales")],
            codes::SHARED_CREDENTIALS,
            "connections[0].credentials",
        ),
        // Sources of roles.
        (
            &[
                ("service_credentials: ops", "service_credentials: person"),
                ("  sales:\n", "  person: { kind: profile, profile: me }\n  sales:\n"),
            ],
            codes::UNSUPPORTED,
            "service_credentials",
        ),
        (
            &[
                ("service_credentials: ops", "service_credentials: admin"),
                (
                    "  sales:\n",
                    "  person: { kind: profile, profile: me }\n  admin: { kind: assume_role, role_arn: \"arn:aws:iam::123456789012:role/a\", source: person }\n  sales:\n",
                ),
            ],
            codes::UNSUPPORTED,
            "service_credentials",
        ),
        // What DSS cannot carry.
        (
            &[("kind: static\n    access_key_id: { secrets_manager: dss/sales", token)],
            codes::UNSUPPORTED,
            "connections[0].credentials",
        ),
        (&[(role, &external)], codes::UNSUPPORTED, "credentials.marketing.external_id"),
        (
            &[("  port: 11200\n", "  port: 11200\n  isolation_groups: [analysts]\n")],
            codes::UNSUPPORTED,
            "dss.isolation_groups",
        ),
    ];
    for (changes, code, path) in cases {
        assert_eq!(problems(&changed(changes)), [(*code, (*path).to_owned())], "{changes:?}");
    }
    // The role of a connection has no source at all; one that is not there is told too.
    let found = problems(&changed(&[(role, &source)]));
    let at = "credentials.marketing.source".to_owned();
    assert!(found.contains(&(codes::UNKNOWN_REFERENCE, at.clone())), "{found:?}");
    assert!(found.contains(&(codes::UNSUPPORTED, at)), "{found:?}");
    let text = changed(&[(role, &loops)]);
    assert!(problems(&text).contains(&(codes::UNSUPPORTED, "credentials.marketing.source".to_owned())));

    // A role by a key for the service user, and one by a person for dssflow.
    let text = changed(&[
        ("service_credentials: ops", "service_credentials: admin"),
        (
            "  sales:\n",
            "  admin: { kind: assume_role, role_arn: \"arn:aws:iam::123456789012:role/a\", source: ops, external_id: acme-1 }\n  \
             person: { kind: profile, profile: me }\n  own: { kind: assume_role, role_arn: \"arn:aws:iam::123456789012:role/o\", source: person, session_name: nightly }\n  sales:\n",
        ),
        ("# aws:\n#   credentials: ops", "aws:\n  credentials: own"),
    ]);
    let site = parse(&text, "x").unwrap_or_else(|e| panic!("{e}"));
    let source = site.credential_source("own").expect("a source").to_string();
    assert_eq!(source, "role arn:aws:iam::123456789012:role/o by profile me");
    assert!(site.credential_source("nobody").is_none());
}
