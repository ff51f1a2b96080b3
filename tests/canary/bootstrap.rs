//! The whole bootstrap with secrets at every place it may come upon one.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use dssflow_sandbox::{Hands, World};
use serde_json::{Value, json};

use crate::scan::{Canary, Scanner};
use crate::support::{Home, program};
use crate::watch::Watch;

/// Variables that hold secrets on an operator's machine and are none of dssflow's business.
const VARIABLES: [&str; 18] = [
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "ARM_ACCESS_KEY",
    "AZURE_CLIENT_SECRET",
    "CI_JOB_TOKEN",
    "DATABASE_URL",
    "DOCKER_AUTH_CONFIG",
    "GITHUB_TOKEN",
    "GPG_PASSPHRASE",
    "NPM_TOKEN",
    "PGPASSWORD",
    "PIP_PASSWORD",
    "SLACK_TOKEN",
    "SSH_KEY_PASSPHRASE",
    "SUDO_PASSWORD",
    "TF_VAR_db_password",
    "VAULT_TOKEN",
];

/// Files of an operator's home that hold secrets.
const FILES: [&str; 6] =
    [".netrc", ".docker/config.json", ".ssh/id_ed25519", ".kube/config", ".git-credentials", ".pgpass"];

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("below a directory")).expect("a directory of ours");
    // What stands there already goes, whatever its mode.
    drop(std::fs::remove_file(path));
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).expect("a file of ours");
    file.write_all(text.as_bytes()).expect("written");
}

struct Nest {
    home: Home,
    world: World,
    hands: Hands,
    canaries: Vec<Canary>,
    variables: Vec<(String, String)>,
    /// What was printed, by the command that printed it.
    printed: Vec<(String, Vec<u8>)>,
    children: BTreeSet<u32>,
    texts: BTreeSet<Vec<u8>>,
}

impl Nest {
    async fn build() -> Self {
        let home = Home::with_sandbox();
        let found = dssflow_sandbox::find(&home.store().join("sandbox")).await.expect("its papers are there");
        let world = found.expect("it lives");
        let hands = Hands::of(&world);
        let mut nest = Self {
            home,
            world,
            hands,
            canaries: Vec::new(),
            variables: Vec::new(),
            printed: Vec::new(),
            children: BTreeSet::new(),
            texts: BTreeSet::new(),
        };
        nest.plant().await;
        nest
    }

    fn canary(&mut self, place: &str) -> String {
        let canary = Canary::new(place);
        let value = canary.value.clone();
        self.canaries.push(canary);
        value
    }

    fn own(&self, file: &str) -> PathBuf {
        self.home.path().join("home").join(file)
    }

    /// Everything that can be planted before DSS is there.
    async fn plant(&mut self) {
        for name in VARIABLES {
            let value = self.canary(&format!("the variable {name}"));
            self.variables.push((name.to_owned(), value));
        }
        for name in FILES {
            let value = self.canary(&format!("the file ~/{name}"));
            write(&self.own(name), &value);
        }
        let operator = self.canary("the secret key of the operator's profile");
        let [other, token] =
            ["key", "session token"].map(|what| self.canary(&format!("another profile's {what}")));
        let id = &self.world.access_key_id;
        let profiles = format!(
            "[operator]\naws_access_key_id = {id}\naws_secret_access_key = {operator}\n\n[other]\naws_access_key_id = \
             AKIAOTHER\naws_secret_access_key = {other}\naws_session_token = {token}\n"
        );
        write(&self.own(".aws/credentials"), &profiles);
        let service = self.canary("the service user's secret key, in a variable");
        self.variables.push(("CANARY_SERVICE_KEY".to_owned(), service));
        let main = self.canary("a secret key in SSM");
        let parameter = json!({ "Name": "/canary/main", "Value": main, "Type": "SecureString" });
        self.hands.json("ssm", "AmazonSSM.PutParameter", &parameter).await.expect("put");
        let [finance, neighbour] =
            ["a secret key", "its neighbour"].map(|what| self.canary(&format!("{what} in Secrets Manager")));
        let secret = json!({ "key": finance, "other": neighbour }).to_string();
        let body = json!({ "Name": "canary/finance", "SecretString": secret });
        self.hands.json("secretsmanager", "secretsmanager.CreateSecret", &body).await.expect("made");
        let password = self.canary("the admin's password");
        write(&self.own("password"), &password);
        let [license, signature] = ["the licence", "its signature"].map(|what| self.canary(what));
        write(
            &self.own("license.json"),
            &json!({ "licenseId": license, "signature": signature }).to_string(),
        );
        self.write_site();
    }

    /// The shipped site with its secrets elsewhere.
    fn write_site(&self) {
        let text = std::fs::read_to_string(&self.world.site_yaml_sdk).expect("the shipped site");
        let mut lines = Vec::new();
        let mut set = "";
        for line in text.lines() {
            let word = line.trim();
            if line.starts_with("  ") && !line.starts_with("   ") {
                set = word.trim_end_matches(':');
            }
            let own = |file: &str| self.own(file).display().to_string();
            lines.push(match (set, word.split(':').next().unwrap_or_default()) {
                ("operator", "kind") => "    kind: profile\n    profile: operator".to_owned(),
                ("operator", "access_key_id" | "secret_access_key") => continue,
                ("service", "secret_access_key") => {
                    "    secret_access_key: {env: CANARY_SERVICE_KEY}".to_owned()
                }
                ("s3-main", "secret_access_key") => "    secret_access_key: {ssm: /canary/main}".to_owned(),
                ("s3-finance", "secret_access_key") => {
                    "    secret_access_key: {secrets_manager: canary/finance, key: key}".to_owned()
                }
                (_, "admin_password") => format!(
                    "  admin_password: {{file: \"{}\"}}\n  license: {{file: \"{}\"}}",
                    own("password"),
                    own("license.json")
                ),
                _ => line.to_owned(),
            });
        }
        write(&self.own("site.yaml"), &lines.join("\n"));
    }

    /// What lies in DSS itself, once it is there.
    async fn plant_in_dss(&mut self) {
        let [bind, proxy, key, login] =
            ["bind password", "proxy password", "connection's key", "user's password"]
                .map(|what| self.canary(&format!("DSS's {what}")));
        let path = "/admin/general-settings";
        let mut settings = self.hands.dss("GET", path, None).await.expect("the settings");
        settings["ldapSettings"]["bindPassword"] = Value::String(bind);
        settings["proxySettings"]["password"] = Value::String(proxy);
        self.hands.dss("PUT", path, Some(&settings)).await.expect("put");
        let connection = json!({ "name": "s3-foreign", "type": "EC2", "usableBy": "ALL",
                                 "params": { "accessKey": "AKIAFOREIGN", "secretKey": key } });
        self.hands.dss("POST", "/admin/connections", Some(&connection)).await.expect("made");
        let user = json!({ "login": "analyst", "password": login, "sourceType": "LOCAL", "groups": [] });
        self.hands.dss("POST", "/admin/users", Some(&user)).await.expect("made");
    }

    /// What was drawn by others meanwhile: the API key and ECR's token.
    async fn add_what_was_drawn(&mut self) {
        let (_, file) = self.world.secrets.iter().find(|(name, _)| name == "dss-api-key").expect("a sink");
        let value = std::fs::read_to_string(file).expect("the key is kept").trim().to_owned();
        self.canaries.push(Canary { place: "the API key of DSS".to_owned(), value });
        let target = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
        // New hands: the connections of the old ones lay idle while this thread waited for commands.
        let given = Hands::of(&self.world).json("ecr", target, &json!({})).await.expect("a token");
        let token = given["authorizationData"][0]["authorizationToken"].as_str().expect("a token").to_owned();
        self.canaries.push(Canary { place: "the token of ECR".to_owned(), value: token });
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .args(args)
            .current_dir(self.home.path())
            .env("DSSFLOW_STORE", self.home.store())
            .env("DSSFLOW_LOG", "trace")
            .env("RUST_BACKTRACE", "1")
            .env("HOME", self.own(""))
            .env_remove("AWS_PROFILE")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end, keeps all it printed, and looks at its children meanwhile.
    fn run(&mut self, args: &[&str], code: i32) {
        let child = self.command(args).spawn().expect("the command starts");
        let watch = Watch::begin(child.id());
        let output = child.wait_with_output().expect("a child of ours");
        let seen = watch.end();
        self.children.extend(seen.children);
        self.texts.extend(seen.texts);
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let tail: Vec<&str> = stderr.lines().rev().take(25).collect();
        assert_eq!(output.status.code(), Some(code), "{args:?}:\n{stdout}\n{}", tail.join("\n"));
        self.printed.push((args.join(" "), [output.stdout, b"\n".to_vec(), output.stderr].concat()));
    }
}

fn fault(target: &str, op: &str, status: u16, code: &str) -> Value {
    json!([{ "target": target, "op": op,
             "action": { "error": { "status": status, "code": code, "message": "made to fail" } } }])
}

#[tokio::test]
async fn no_secret_is_in_anything_that_is_kept_or_shown() {
    let begun = Instant::now();
    let mut nest = Nest::build().await;
    let site = nest.own("site.yaml");
    let site = site.to_str().expect("a plain path").to_owned();
    // Forward until DSS is there and refuses its settings; on until it refuses those of a project; to the end.
    nest.home.faults(&fault("dss", "PUT /admin/general-settings", 500, "com.dataiku.Exception"));
    nest.run(&["run", "bootstrap", "--sandbox", "-f", &site], 3);
    nest.run(&["why"], 0);
    nest.home.faults(&fault("dss", "PUT /projects/*", 500, "html"));
    nest.plant_in_dss_with_faults_off().await;
    nest.run(&["resume", "@latest"], 3);
    nest.run(&["runs", "get", "-o", "json"], 0);
    nest.home.faults(&json!([]));
    nest.run(&["resume", "@latest"], 0);
    nest.add_what_was_drawn().await;
    let [archive, backup, whole] = ["run.ndjson", "backup.ndjson", "store.ndjson"]
        .map(|name| nest.home.path().join("kept").join(name).display().to_string());
    std::fs::create_dir_all(nest.home.path().join("kept")).expect("a directory of ours");
    nest.run(&["runs", "events"], 0);
    nest.run(&["runs", "export", "@latest", "-o", &archive], 0);
    nest.run(&["store", "backup", &backup], 0);
    nest.run(&["store", "export", "-o", &whole], 0);
    // And back, refused once on the way.
    nest.home.faults(&fault("aws", "glue:DeleteDatabase", 400, "AccessDeniedException"));
    nest.run(&["rollback", "@latest"], 7);
    nest.home.faults(&json!([]));
    nest.run(&["rollback", "@latest"], 0);
    nest.run(&["runs", "get", "-o", "json"], 0);

    let scanner = Scanner::new(nest.canaries.clone());
    let (mut found, files) = scanner.scan_dir(&nest.home.store(), &nest.home.store().join("sandbox"));
    let (more, copies) = scanner.scan_dir(&nest.home.path().join("kept"), Path::new("/nowhere"));
    found.extend(more);
    let mut bytes = 0;
    for (command, text) in &nest.printed {
        bytes += text.len();
        found.extend(scanner.scan(&format!("what `{command}` printed"), text));
    }
    for text in &nest.texts {
        found.extend(scanner.scan("the argv or environment of a child", text));
    }
    println!(
        "canary: cases={} files={} printed_bytes={bytes} children={} violations={} seconds={}",
        scanner.canaries().len(),
        files + copies,
        nest.children.len(),
        found.len(),
        begun.elapsed().as_secs()
    );
    let lines: Vec<&str> = found.iter().map(String::as_str).take(40).collect();
    assert!(found.is_empty(), "{} secrets are seen:\n{}", found.len(), lines.join("\n"));
    assert!(scanner.canaries().len() >= 40, "{}", scanner.canaries().len());
    assert!(nest.children.len() >= 20, "children that were looked at: {}", nest.children.len());
    assert!(files >= 3 && copies == 3 && bytes > 100_000, "{files} {copies} {bytes}");

    // The search sees what is there to be seen.
    let leak = nest.home.store().join("leak");
    for (ix, canary) in scanner.canaries().iter().enumerate() {
        write(&leak.join("file"), &format!("{ix} {}", canary.value));
        let (found, _) = scanner.scan_dir(&leak, Path::new("/nowhere"));
        assert!(found.iter().any(|line| line.starts_with(&canary.place)), "{}: {found:?}", canary.place);
    }
}

impl Nest {
    /// Plants while nothing goes wrong, and lets it go wrong again as it did.
    async fn plant_in_dss_with_faults_off(&mut self) {
        let script = dssflow_sandbox::fault_report(&self.world).await.expect("the sandbox answers");
        let faults: Vec<_> = script.into_iter().map(|count| count.fault).collect();
        dssflow_sandbox::set_faults(&self.world, &[]).await.expect("no faults");
        self.plant_in_dss().await;
        dssflow_sandbox::set_faults(&self.world, &faults).await.expect("the same again");
    }
}
