//! Credentials over the life of a run: what ends is waited for and renewed, somebody else is refused before any call, and
//! what is private is shown to be.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use dssflow_activities::clients::{AwsClients, ClientsConfig};
use dssflow_sandbox::World;
use serde_json::json;

use crate::support::{Home, Ran, differences, kept_by_rule};

/// A person's AWS profile, in files of its own.
struct Profile<'h> {
    home: &'h Home,
    world: World,
}

impl<'h> Profile<'h> {
    fn new(home: &'h Home) -> Self {
        let world = block_on(async {
            dssflow_sandbox::find(&home.store().join("sandbox")).await.expect("asks").expect("alive")
        });
        let profile = Self { home, world };
        profile.of("operator");
        profile
    }

    fn file(&self) -> PathBuf {
        self.home.path().join("aws-credentials")
    }

    fn write(&self, id: &str, secret: &str, token: Option<&str>) {
        let token = token.map_or_else(String::new, |t| format!("aws_session_token = {t}\n"));
        let text = format!("[person]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n{token}");
        let new = self.file().with_extension("new");
        fs::write(&new, text).expect("a file of ours");
        fs::rename(new, self.file()).expect("a file of ours");
    }

    /// The profile is of this principal of the world from now on.
    fn of(&self, name: &str) {
        let read = |what: &str| {
            let name = format!("{name}-{what}");
            let (_, path) = self.world.secrets.iter().find(|(known, _)| *known == name).expect("a secret");
            fs::read_to_string(path).expect("a file of the world").trim().to_owned()
        };
        self.write(&read("access-key-id"), &read("secret-access-key"), None);
    }

    /// Its session has ended.
    fn end(&self) {
        self.write("ASIAEXPIRED00000000", "x", Some("y"));
    }

    /// It is of another account.
    fn abroad(&self) {
        let mut spec = ClientsConfig::new(self.world.region.clone());
        spec.endpoint_url = Some(self.world.moto_endpoint.clone());
        spec.credentials = Some(dssflow_activities::clients::StaticCredentials::new("AKIA", "x"));
        let given = block_on(async {
            let clients = AwsClients::connect(&spec).await;
            let call = clients.sts().assume_role().role_arn("arn:aws:iam::210987654321:role/abroad");
            call.role_session_name("abroad").send().await.expect("a session").credentials.expect("a key")
        });
        self.write(given.access_key_id(), given.secret_access_key(), Some(given.session_token()));
    }

    fn env(&self) -> [(&'static str, PathBuf); 2] {
        let nothing = self.home.path().join("aws-config");
        [("AWS_SHARED_CREDENTIALS_FILE", self.file()), ("AWS_CONFIG_FILE", nothing)]
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.home.run_with(args, &self.env())
    }

    /// Calls to AWS by operation.
    fn calls(&self) -> BTreeMap<String, u64> {
        let report = block_on(dssflow_sandbox::calls(&self.world)).expect("answers");
        report.by_op.into_iter().filter(|(op, _)| op.contains(':') && !op.contains(' ')).collect()
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

/// A command under way, whose stderr is watched.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn start(profile: &Profile<'_>, args: &[&str]) -> Self {
        let log = profile.home.path().join("stderr");
        let file = fs::File::create(&log).expect("a file of ours");
        let mut command = profile.home.command(args);
        command.envs(profile.env()).stdout(Stdio::null()).stderr(file);
        Self { child: command.spawn().expect("the command starts"), log }
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the command has said this.
    #[track_caller]
    fn says(&mut self, text: &str) {
        let until = Instant::now() + Duration::from_secs(90);
        while !self.text().contains(text) {
            let ended = self.child.try_wait().expect("a child of ours");
            assert!(
                ended.is_none() && Instant::now() < until,
                "{text:?} is not in:\n{}\n({ended:?})",
                self.text()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn ends_with(mut self, code: i32) -> String {
        let status = self.child.wait().expect("a child of ours");
        assert_eq!(status.code(), Some(code), "{}", self.text());
        self.text()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only a failed test leaves it alive.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

const AS_PERSON: [&str; 6] = [
    "--set",
    "aws.credentials=person",
    "--set",
    "credentials.person.kind=profile",
    "--set",
    "credentials.person.profile=person",
];

fn expired(times: u32) -> serde_json::Value {
    json!([{ "target": "aws", "op": "glue:CreateDatabase", "times": times,
             "action": { "error": { "status": 400, "code": "ExpiredTokenException", "message": "expired" } } }])
}

/// One run for all of it, because a run takes its time.
#[test]
fn what_ends_is_renewed_and_what_is_private_stays_so() {
    let home = Home::with_sandbox();
    let before = home.snapshot();
    let profile = Profile::new(&home);
    home.faults(&expired(1));
    let isolated = ["--set", "dss.user_isolation=true", "--set", "dss.isolation_groups=[analysts, data]"];
    let args = [&["run", "bootstrap", "--sandbox"][..], &AS_PERSON, &isolated].concat();
    let mut run = Running::start(&profile, &args);
    // The run works with what it has looked up; when it is refused, the file has another session, which has ended as well.
    run.says("run bootstrap-sandbox");
    profile.end();
    run.says("the AWS credentials have ended");
    let status = home.json(&["runs", "get", "-o", "json"])["status"].clone();
    assert_eq!(status, "paused", "its owner answers while it waits");
    profile.of("service");
    run.says("still waiting");
    profile.of("operator");
    let text = run.ends_with(0);
    assert!(text.contains("answer again as arn:aws:iam::123456789012:user/platform-engineer"), "{text}");
    for step in ["glue-database-dss_main", "glue-database-dss_finance"] {
        assert_eq!(home.step(step)["failures"], 0, "an ended session costs no attempt");
    }

    // User isolation is in, DSS runs, and nobody can read the keys.
    let world = home.snapshot();
    let files = world["host"]["files"].as_object().expect("files");
    let ini = files.keys().find(|f| f.ends_with("security-config.ini")).expect("the security module's file");
    let root = home.store().join("sandbox/host");
    let ini = fs::read_to_string(root.join(ini.trim_start_matches('/'))).expect("readable here");
    assert!(ini.contains("allowed_user_groups = analysts;data"), "{ini}");
    assert_eq!(world["host"]["services"]["active"].to_string().matches("dataiku").count(), 1);
    let private = home.step("aws-credentials-private")["output"].to_string();
    assert!(private.contains("/home/dssuser/.aws/credentials"), "{private}");

    profile.run(&["rollback", "@latest"]).expect(0).says("no documented way back from user isolation");
    let left: Vec<_> = differences(&before, &home.snapshot())
        .into_iter()
        .filter(|d| !kept_by_rule(d) && !d.contains("/etc/dataiku-security") && !d.contains("/etc/sudoers.d"))
        .collect();
    assert!(left.is_empty(), "{}", left.join("\n"));
}

#[test]
fn somebody_else_is_refused_before_any_call() {
    let home = Home::with_sandbox();
    let profile = Profile::new(&home);
    home.faults(&json!([{ "target": "aws", "op": "glue:CreateDatabase",
        "action": { "error": { "status": 400, "code": "AccessDeniedException", "message": "made to fail" } } }]));
    profile.run(&[&["run", "bootstrap", "--sandbox"][..], &AS_PERSON].concat()).expect(1);
    home.faults(&json!([]));
    let other: [(&str, &dyn Fn(), &str); 2] = [
        (
            "another user",
            &|| profile.of("service"),
            "belongs to arn:aws:iam::123456789012:user/platform-engineer",
        ),
        ("another account", &|| profile.abroad(), "210987654321"),
    ];
    for (who, change, says) in other {
        change();
        for command in ["resume", "rollback"] {
            let before = profile.calls();
            let world = home.snapshot();
            profile.run(&[command, "@latest"]).expect(5).says("DF0021").says(says);
            let mut after = profile.calls();
            let asked = after.get_mut("sts:GetCallerIdentity").expect("it was asked who it is");
            *asked -= 1;
            after.retain(|_, n| *n > 0);
            assert_eq!(after, before, "{command} as {who} called something");
            assert!(differences(&world, &home.snapshot()).is_empty(), "{command} as {who} changed something");
        }
    }
    profile.of("operator");
    profile.run(&["rollback", "@latest"]).expect(0);
}

#[test]
fn the_command_does_not_wait_when_it_is_told_so() {
    let home = Home::with_sandbox();
    let profile = Profile::new(&home);
    home.faults(&expired(1));
    let args = [&["run", "bootstrap", "--sandbox"][..], &AS_PERSON].concat();
    let env = [("DSSFLOW_CREDENTIALS_WAIT", PathBuf::from("0"))];
    let env = [&profile.env()[..], &env].concat();
    home.run_with(&args, &env).expect(4).says("dssflow resume");
    let wrong = [("DSSFLOW_CREDENTIALS_WAIT", PathBuf::from("soon"))];
    home.run_with(&["resume", "@latest"], &[&profile.env()[..], &wrong].concat()).expect(64);
}
