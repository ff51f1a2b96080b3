//! `aws` and its installer, `kubectl`, `eksctl`, `aws-iam-authenticator`.

use std::io::Read;

use super::super::{Call, ToolResult, admin, kits, refuse};

/// The version a stub program was built with, `# NAME VERSION; ...` on its second line.
fn version_of(call: &Call, path: &str) -> Option<String> {
    let text = call.root.read(path)?;
    let words = text.lines().nth(1)?.trim_start_matches("# ").split(';').next()?.to_owned();
    words.split(' ').nth(1).map(str::to_owned)
}

/// `kubectl version --client -o json`
pub(super) fn kubectl(call: &mut Call) -> ToolResult {
    if call.argv.get(1).map(String::as_str) != Some("version") {
        return refuse(
            1,
            "The connection to the server was refused - did you specify the right host or port?",
        );
    }
    let version = version_of(call, "/usr/local/bin/kubectl").unwrap_or_default();
    call.print(serde_json::json!({"clientVersion": {"gitVersion": format!("v{version}")}}).to_string());
    Ok(0)
}

/// `eksctl version`; clusters are made by the fake DSS.
pub(super) fn eksctl(call: &mut Call) -> ToolResult {
    if call.argv.get(1).map(String::as_str) != Some("version") {
        return refuse(1, "Error: the sandbox runs eksctl only inside the fake DSS");
    }
    call.print(version_of(call, "/usr/local/bin/eksctl").unwrap_or_default());
    Ok(0)
}

/// `aws-iam-authenticator version -o json`
pub(super) fn authenticator(call: &mut Call) -> ToolResult {
    let version = version_of(call, "/usr/local/bin/aws-iam-authenticator").unwrap_or_default();
    call.print(serde_json::json!({"Version": format!("v{version}"), "Commit": "sandbox"}).to_string());
    Ok(0)
}

/// `DIR/aws/install [--install-dir DIR] [--bin-dir DIR] [--update]`
pub(super) fn aws_installer(call: &mut Call) -> ToolResult {
    if !call.is_root() {
        return refuse(
            1,
            "You can run this script with sudo. mkdir: cannot create directory '/usr/local/aws-cli': Permission denied",
        );
    }
    let install = call.option(&["-i", "--install-dir"]).unwrap_or("/usr/local/aws-cli").to_owned();
    let bin = call.option(&["-b", "--bin-dir"]).unwrap_or("/usr/local/bin").to_owned();
    let current = format!("{install}/v2/current/dist/aws");
    if call.root.exists(&current) && !call.has("--update") {
        return refuse(
            1,
            format!(
                "Found preexisting AWS CLI installation: {install}/v2/current. Please rerun install script with --update flag."
            ),
        );
    }
    let source = call.argv[0].trim_end_matches("/install").to_owned();
    let Some(program) = call.root.read(&format!("{source}/dist/aws")) else {
        return refuse(1, "the bundle is not complete");
    };
    call.root.write_program(&current, &program)?;
    call.root.write_program(&format!("{bin}/aws"), &program)?;
    call.print(format!("You can now run: {bin}/aws --version"));
    Ok(0)
}

/// `aws --version`, `aws sts get-caller-identity`, `aws ecr get-login-password`
pub(super) fn aws(call: &mut Call) -> ToolResult {
    let args: Vec<String> = call.args().into_iter().map(str::to_owned).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--version", ..] => {
            let version =
                version_of(call, "/usr/local/bin/aws").unwrap_or_else(|| kits::AWS_CLI_VERSION.to_owned());
            call.print(format!("aws-cli/{version} Python/3.13.7 Linux/4.18.0 exe/x86_64.almalinux.8"));
            Ok(0)
        }
        ["sts", "get-caller-identity", ..] => caller(call),
        ["ecr", "get-login-password", ..] => {
            access_key(call)?;
            call.print("sandbox-ecr-password");
            Ok(0)
        }
        _ => {
            refuse(252, "aws: the sandbox knows `sts get-caller-identity` and `ecr get-login-password` only")
        }
    }
}

/// The access key of the user's credentials file.
fn access_key(call: &Call) -> Result<String, super::super::Refusal> {
    let home = call.root.user(&call.user).map_or_else(|| "/root".to_owned(), |u| u.home);
    let text = call.root.read(&format!("{home}/.aws/credentials")).unwrap_or_default();
    let value = |name: &str| {
        let line = text.lines().find(|l| l.split('=').next().is_some_and(|k| k.trim() == name))?;
        line.split_once('=').map(|(_, v)| v.trim().to_owned()).filter(|v| !v.is_empty())
    };
    match (value("aws_access_key_id"), value("aws_secret_access_key")) {
        (Some(key), Some(_)) => Ok(key),
        _ => refuse(
            253,
            "Unable to locate credentials. You can configure credentials by running \"aws configure\".",
        ),
    }
}

fn caller(call: &mut Call) -> ToolResult {
    let key = access_key(call)?;
    let account = call.config.account.clone();
    let mut arn = format!("arn:aws:iam::{account}:user/sandbox");
    let mut id = account;
    if let Some(endpoint) = call.config.aws_endpoint.clone() {
        let region = &call.config.region;
        let headers = [
            "Content-Type: application/x-www-form-urlencoded".to_owned(),
            format!(
                "Authorization: AWS4-HMAC-SHA256 Credential={key}/20260101/{region}/sts/aws4_request, SignedHeaders=host, Signature=0"
            ),
        ];
        let body = b"Action=GetCallerIdentity&Version=2011-06-15";
        let mut reply =
            admin::request("POST", &format!("{}/", endpoint.trim_end_matches('/')), &headers, body)?;
        let mut text = String::new();
        reply.body.read_to_string(&mut text)?;
        let between = |tag: &str| {
            let start = text.find(&format!("<{tag}>"))? + tag.len() + 2;
            Some(text[start..].split('<').next()?.to_owned())
        };
        let (Some(found_arn), Some(found_account)) = (between("Arn"), between("Account")) else {
            return refuse(
                254,
                format!("An error occurred when calling the GetCallerIdentity operation: {}", text.trim()),
            );
        };
        (arn, id) = (found_arn, found_account);
    }
    call.print(serde_json::json!({"UserId": "AIDASANDBOX", "Account": id, "Arn": arn}).to_string());
    Ok(0)
}
