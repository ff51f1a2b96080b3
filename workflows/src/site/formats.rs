//! What single values must look like: each format once, as a JSON Schema for editors and as a check in Rust. The
//! schema carries the format's name; the shape check looks the Rust check up by it.

use schemars::{Schema, SchemaGenerator, json_schema};

macro_rules! text_formats {
    ($($(#[$doc:meta])* $function:ident $format:literal $pattern:literal $what:literal;)*) => {
        $(
            $(#[$doc])*
            pub(crate) fn $function(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format, "pattern": $pattern })
            }
        )*

        /// What a value of this format is, for people.
        pub(super) fn describe(format: &str) -> Option<&'static str> {
            match format { $($format => Some($what),)* _ => None }
        }
    };
}

text_formats! {
    site_name "site-name" "^[a-z0-9][a-z0-9-]{0,39}$" "up to 40 of a-z 0-9 -, a letter or digit first";
    account "aws-account" "^[0-9]{12}$" "an AWS account id: 12 digits, quoted";
    region "aws-region" "^[a-z]{2}(-[a-z]+)+-[0-9]$" "an AWS region, as eu-west-1";
    instance "ec2-instance" "^i-[0-9a-f]{8,17}$" "an EC2 instance id, as i-0123456789abcdef0";
    role_arn "iam-role-arn" "^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$" "a role's ARN, as arn:aws:iam::123456789012:role/NAME";
    sha256 "sha256" "^[0-9a-fA-F]{64}$" "a SHA-256: 64 hex digits, as sha256sum prints it";
    url "http-url" "^https?://[^/\\s]+" "a URL that starts with http:// or https://";
    s3_url "s3-url" "^s3://[a-z0-9.-]{3,63}/" "a place in a bucket, as s3://BUCKET/PATH/";
    bucket "s3-bucket" "^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$" "a bucket's name: 3 to 63 of a-z 0-9 . -, no s3://, no path";
    glue_name "glue-database" "^[a-z0-9_]{1,255}$" "a Glue database that Athena can read: a-z 0-9 _";
    dss_name "dss-name" "^[A-Za-z][A-Za-z0-9_-]{0,59}$" "up to 60 of A-Z a-z 0-9 _ -, a letter first";
    project_key "dss-project-key" "^[A-Z][A-Z0-9_]{0,99}$" "a project key: A-Z 0-9 _, a letter first";
    cluster_name "cluster-name" "^[a-z][a-z0-9-]{0,59}$" "up to 60 of a-z 0-9 -, a letter first: it becomes a CloudFormation stack's name";
    unix_name "unix-name" "^[a-z_][a-z0-9_-]{0,31}$" "a user's name on the host: a-z 0-9 _ -";
    abs_path "absolute-path" "^/" "an absolute path without .. in it";
    version "version" "^[0-9]+(\\.[0-9]+)+([.-][0-9A-Za-z.-]+)?$" "a version, quoted, as \"14.2.0\"";
    k8s_version "kubernetes-version" "^1\\.[0-9]{2}$" "a Kubernetes version, quoted, as \"1.33\"";
    machine_type "ec2-instance-type" "^[a-z0-9-]+\\.[a-z0-9-]+$" "an EC2 instance type, as m7i.4xlarge";
    registry "registry-host" "^[A-Za-z0-9.-]+(:[0-9]+)?$" "a registry's host, without https:// and without a path";
    repository_prefix "repository-prefix" "^[a-z0-9]+([._/-][a-z0-9]+)*$" "a repository prefix: a-z 0-9 . _ - /, no / at either end";
    subnet "subnet-id" "^subnet-[0-9a-f]{8,17}$" "a subnet id, as subnet-0123456789abcdef0";
    security_group "security-group-id" "^sg-[0-9a-f]{8,17}$" "a security group id, as sg-0123456789abcdef0";
    session_name "role-session-name" "^[A-Za-z0-9_+=,.@-]{2,64}$" "2 to 64 of A-Z a-z 0-9 _ + = , . @ -";
    external_id "external-id" "^[A-Za-z0-9_+=,.@:/-]{2,1224}$" "2 to 1224 of A-Z a-z 0-9 _ + = , . @ : / -";
    image "ec2-image" "^ami-[0-9a-f]{8,17}$" "a machine image id, as ami-0123456789abcdef0";
    image_owner "ec2-image-owner" "^([0-9]{12}|self|amazon)$" "an AWS account id of 12 digits, quoted, or `self` or `amazon`";
    iam_name "iam-name" "^[A-Za-z0-9+=,.@_-]{1,128}$" "a name in IAM, no ARN";
    public_key "ssh-public-key" "^ssh-(ed25519|rsa) [A-Za-z0-9+/=]+( .*)?$" "one line that begins with ssh-ed25519 or ssh-rsa, as in ~/.ssh/id_ed25519.pub; never a private key";
    user_data "user-data" "" "a script or cloud-config of at most 4096 bytes, without a secret in it";
    plain "text" "^\\S(.*\\S)?$" "a text that is not empty";
    any_text "any-text" "" "a text";
}

/// A TCP port above the privileged ones.
pub(crate) fn port(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 1, "maximum": 65526 })
}

/// At least two subnets.
pub(super) fn subnets(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "minItems": 2, "uniqueItems": true, "format": "subnets", "items": subnet(generator) })
}

/// Names of Unix users or groups.
pub(super) fn unix_names(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "uniqueItems": true, "items": unix_name(generator) })
}

/// At least one security group.
pub(super) fn security_groups(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "minItems": 1, "uniqueItems": true, "items": security_group(generator) })
}

/// Security groups, perhaps none.
pub(super) fn more_security_groups(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "uniqueItems": true, "items": security_group(generator) })
}

/// The longest user data. EC2 takes 16 KiB; what is longer belongs into a step that can be looked at.
const MAX_USER_DATA: usize = 4096;

/// Whether a text looks as if a secret stood in it. Meant for user data, which anybody who may describe the instance
/// reads.
fn holds_a_secret(text: &str) -> bool {
    let lower = text.to_lowercase();
    let named = [
        "private key-----",
        "aws_secret_access_key",
        "aws_session_token",
        "dkuaps-",
        "password=",
        "password:",
    ];
    let key_id = |word: &str| {
        word.len() == 20
            && (word.starts_with("AKIA") || word.starts_with("ASIA"))
            && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
    };
    named.iter().any(|mark| lower.contains(mark))
        || text.split(|c: char| !c.is_ascii_alphanumeric()).any(key_id)
}

/// Any JSON object.
pub(super) fn json_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "format": "any-object" })
}

fn place(key: &str) -> serde_json::Value {
    serde_json::json!({ "type": "object", "properties": { key: { "type": "string" } }, "required": [key], "additionalProperties": false })
}

/// Where a secret is.
pub(crate) fn secret_ref(_: &mut SchemaGenerator) -> Schema {
    let with_key = serde_json::json!({
        "type": "object",
        "properties": { "secrets_manager": { "type": "string" }, "key": { "type": "string" } },
        "required": ["secrets_manager"],
        "additionalProperties": false
    });
    json_schema!({ "format": "secret-ref", "oneOf": [place("env"), place("file"), with_key, place("ssm")] })
}

/// A secret's place, or a sink.
pub(super) fn api_key(generator: &mut SchemaGenerator) -> Schema {
    let sink = serde_json::json!({
        "type": "object",
        "properties": { "sink": { "oneOf": [place("file"), place("secrets_manager"), place("ssm")] } },
        "required": ["sink"],
        "additionalProperties": false
    });
    json_schema!({ "format": "api-key", "oneOf": [secret_ref(generator), sink] })
}

fn all(text: &str, allowed: &str) -> bool {
    text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || allowed.contains(c))
}

fn word(text: &str, allowed: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || allowed.contains(c))
}

fn hex_id(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|id| {
        matches!(id.len(), 8..=17) && id.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
    })
}

fn starts(text: &str, first: impl Fn(char) -> bool) -> bool {
    text.starts_with(first)
}

/// Whether `text` is of the named format. Unknown formats hold.
pub(super) fn holds(format: &str, text: &str) -> bool {
    let lower = |c: char| c.is_ascii_lowercase();
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    match format {
        "site-name" => text.len() <= 40 && starts(text, alnum) && all(text, "-"),
        "aws-account" => text.len() == 12 && text.chars().all(|c| c.is_ascii_digit()),
        "aws-region" => {
            let parts: Vec<&str> = text.split('-').collect();
            parts.len() >= 3
                && parts[0].len() == 2
                && all(text, "-")
                && parts.last().is_some_and(|n| n.parse::<u8>().is_ok())
        }
        "ec2-instance" => hex_id(text, "i-"),
        "subnet-id" => hex_id(text, "subnet-"),
        "security-group-id" => hex_id(text, "sg-"),
        "iam-role-arn" => {
            let parts: Vec<&str> = text.splitn(6, ':').collect();
            parts.len() == 6
                && parts[0] == "arn"
                && parts[1].starts_with("aws")
                && parts[2] == "iam"
                && holds("aws-account", parts[4])
                && parts[5].strip_prefix("role/").is_some_and(|name| !name.is_empty())
        }
        "role-session-name" => (2..=64).contains(&text.len()) && word(text, "_+=,.@-"),
        "external-id" => (2..=1224).contains(&text.len()) && word(text, "_+=,.@:/-"),
        "ec2-image" => hex_id(text, "ami-"),
        "ec2-image-owner" => matches!(text, "self" | "amazon") || holds("aws-account", text),
        "iam-name" => {
            matches!(text.len(), 1..=128)
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c))
        }
        "ssh-public-key" => {
            let mut words = text.split(' ');
            matches!(words.next(), Some("ssh-ed25519" | "ssh-rsa"))
                && words.next().is_some_and(|key| {
                    key.len() > 40 && key.chars().all(|c| c.is_ascii_alphanumeric() || "+/=".contains(c))
                })
                && !text.chars().any(char::is_control)
        }
        "user-data" => !text.trim().is_empty() && text.len() <= MAX_USER_DATA && !holds_a_secret(text),
        "sha256" => text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit()),
        "http-url" => {
            let known = text.starts_with("http://") || text.starts_with("https://");
            known && url::Url::parse(text).is_ok_and(|url| url.host().is_some() && url.password().is_none())
        }
        "s3-url" => text
            .strip_prefix("s3://")
            .and_then(|rest| rest.split_once('/'))
            .is_some_and(|(bucket, _)| holds("s3-bucket", bucket)),
        "s3-bucket" => {
            matches!(text.len(), 3..=63)
                && all(text, ".-")
                && starts(text, alnum)
                && text.ends_with(alnum)
                && !text.contains("..")
        }
        "glue-database" => matches!(text.len(), 1..=255) && all(text, "_"),
        "dss-name" => {
            text.len() <= 60
                && starts(text, |c| c.is_ascii_alphabetic())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
        }
        "dss-project-key" => {
            text.len() <= 100
                && starts(text, |c| c.is_ascii_uppercase())
                && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        }
        "cluster-name" => text.len() <= 60 && starts(text, lower) && all(text, "-"),
        "unix-name" => text.len() <= 32 && starts(text, |c| lower(c) || c == '_') && all(text, "_-"),
        "absolute-path" => {
            text.starts_with('/') && !text.split('/').any(|part| part == "..") && !text.contains('\0')
        }
        "version" => {
            let mut parts = text.split(['.', '-']);
            let number = |part: Option<&str>| {
                part.is_some_and(|p| !p.is_empty() && p.chars().all(|c| c.is_ascii_digit()))
            };
            number(parts.next())
                && number(parts.next())
                && parts.all(|p| !p.is_empty() && p.chars().all(|c| c.is_ascii_alphanumeric()))
        }
        "kubernetes-version" => {
            text.strip_prefix("1.").is_some_and(|n| n.len() == 2 && n.chars().all(|c| c.is_ascii_digit()))
        }
        "ec2-instance-type" => text.split_once('.').is_some_and(|(family, size)| {
            !family.is_empty() && !size.is_empty() && all(family, "-") && all(size, "-")
        }),
        "registry-host" => {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || ".-:".contains(c))
        }
        "repository-prefix" => {
            all(text, "._/-") && starts(text, alnum) && text.ends_with(alnum) && !text.contains("//")
        }
        "text" => !text.is_empty() && text.trim() == text && !text.chars().any(char::is_control),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::holds;

    #[test]
    fn each_format_takes_the_good_and_refuses_the_bad() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("site-name", &["lab", "lab-2"], &["", "Lab", "-lab", "lab_1"]),
            ("aws-account", &["123456789012"], &["1234", "12345678901x"]),
            ("aws-region", &["eu-west-1", "us-gov-west-1"], &["eu-west", "Europe", "eu-west-1a"]),
            ("ec2-instance", &["i-0123456789abcdef0"], &["i-xyz", "0123456789"]),
            (
                "iam-role-arn",
                &["arn:aws:iam::123456789012:role/a/b"],
                &["arn:aws:iam::123456789012:user/a", "role/a"],
            ),
            (
                "http-url",
                &["https://a.example/x", "http://127.0.0.1:9/k"],
                &["ftp://a", "a.example", "https://u:p@a/x"],
            ),
            ("s3-url", &["s3://bucket/path/"], &["bucket/path", "s3://UP/x"]),
            ("s3-bucket", &["my-bucket"], &["s3://my-bucket", "My", "a", "a..b"]),
            ("glue-database", &["sales_raw"], &["sales-raw", "Sales", ""]),
            ("dss-name", &["s3-main", "SparkOnEKS"], &["", "a b", "1a"]),
            ("dss-project-key", &["CHURN_2"], &["churn", "2X"]),
            ("version", &["14.2.0", "0.6.20", "1.5.0-rc.1"], &["14", "v1.2", "latest", "1..2"]),
            ("kubernetes-version", &["1.33"], &["1.3", "1.33.1", "133"]),
            ("ec2-instance-type", &["m7i.4xlarge"], &["large", "m7i."]),
            ("absolute-path", &["/data/dss"], &["data", "/a/../b"]),
            ("ec2-image", &["ami-0123456789abcdef0"], &["AlmaLinux", "ami-"]),
            ("ec2-image-owner", &["764336703387", "self"], &["almalinux", "7643"]),
            ("iam-name", &["dss-host"], &["arn:aws:iam::1:instance-profile/x", "a b", ""]),
            (
                "ssh-public-key",
                &["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPXh0Zk3mWm5c0zY9bq1a2b3c4d5e6f7a8b9c0d1e2f3 me@here"],
                &["-----BEGIN OPENSSH PRIVATE KEY-----", "ssh-dss AAAA", "ssh-rsa"],
            ),
            (
                "user-data",
                &["#!/bin/sh\nmkdir -p /data\n"],
                &[
                    "",
                    "export AWS_SECRET_ACCESS_KEY=x",
                    "KEY=AKIAIOSFODNN7EXAMPLE",
                    "-----BEGIN RSA PRIVATE KEY-----",
                ],
            ),
        ];
        for (format, good, bad) in cases {
            for text in *good {
                assert!(holds(format, text), "{format} refuses {text:?}");
            }
            for text in *bad {
                assert!(!holds(format, text), "{format} takes {text:?}");
            }
        }
    }
}
