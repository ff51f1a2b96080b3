//! Credentials and secrets against the sandbox's AWS: references and sinks in Secrets Manager and SSM, a rotation
//! between two attempts, assumed roles, sessions that end, and what keeps instance metadata private.
//!
//! The program is its own sandbox daemon (`__sandbox ...`), so it has no test harness: `main` runs the cases in turn
//! and names each. The engine is not here; contexts are made by hand.

#![expect(clippy::print_stdout, reason = "a test program without a harness prints its own lines")]

mod by_hand;

use std::process::ExitCode;
use std::sync::Arc;

use dssflow_activities::aws::identity::identify;
use dssflow_activities::aws::metadata_options::{self, MetadataOptions, MetadataOptionsInput};
use dssflow_activities::clients::{AwsClients, ClientsConfig, CredentialSource, StaticCredentials};
use dssflow_activities::host::credentials_private::{CredentialsPrivate, CredentialsPrivateInput};
use dssflow_activities::host::{HostHandle, HostUser, LocalHost};
use dssflow_activities::secret::{Secret, SecretClients, SecretRef, SecretSink, resolve, resolve_in};
use dssflow_engine::activity::{
    Activity, ActivityContext, ErrorClass, Owner, Probe, Recorded, Resources, Undo,
};
use dssflow_sandbox::World;

use by_hand::{Attempt, Cases, Ledger, Sandbox};

fn main() -> ExitCode {
    by_hand::main(all)
}

struct Lab {
    world: World,
    spec: ClientsConfig,
    clients: AwsClients,
}

impl Lab {
    /// A context of an attempt, with its ledger.
    fn ctx(&self, attempt: u32) -> (ActivityContext, Arc<Ledger>) {
        let mut resources = Resources::default();
        resources.insert(self.clients.clone());
        resources.insert(self.clients.secretsmanager().clone());
        resources.insert(self.clients.ssm().clone());
        resources.insert(HostHandle(Arc::new(LocalHost::new(self.world.host_wrapper.clone()))));
        Attempt { attempt, ..Attempt::default() }.context(resources)
    }

    fn secrets(&self) -> SecretClients<'_> {
        SecretClients { secrets_manager: Some(self.clients.secretsmanager()), ssm: Some(self.clients.ssm()) }
    }

    async fn acting_as(&self, source: CredentialSource) -> AwsClients {
        let spec = ClientsConfig { credentials: None, source: Some(source), ..self.spec.clone() };
        AwsClients::connect(&spec).await
    }

    /// The operator's key, in files.
    fn operator(&self) -> CredentialSource {
        let file = |name: &str| {
            let (_, path) = self.world.secrets.iter().find(|(known, _)| known == name).expect("a secret");
            SecretRef::File { file: path.clone() }
        };
        CredentialSource::Static {
            access_key_id: file("operator-access-key-id"),
            secret_access_key: file("operator-secret-access-key"),
            session_token: None,
        }
    }
}

async fn all(sandbox: Sandbox) -> Cases {
    let Sandbox { world, clients } = sandbox;
    let lab = Arc::new(Lab { world, spec: clients.spec().clone(), clients });
    let mut cases = Cases::default();
    cases.case("sinks and references", sinks_and_references(Arc::clone(&lab))).await;
    cases.case("a rotation between attempts", a_rotation(Arc::clone(&lab))).await;
    cases.case("unusable references", unusable(Arc::clone(&lab))).await;
    cases.case("sources", sources(Arc::clone(&lab))).await;
    cases.case("a session that ended", an_ended_session(Arc::clone(&lab))).await;
    cases.case("metadata options", the_metadata_options(Arc::clone(&lab))).await;
    cases.case("private files", private_files(Arc::clone(&lab))).await;
    cases
}

fn sinks() -> [SecretSink; 2] {
    [
        SecretSink::SecretsManager { secrets_manager: "dss/key".into() },
        SecretSink::Ssm { ssm: "/dss/key".into() },
    ]
}

async fn sinks_and_references(lab: Arc<Lab>) {
    let clients = lab.secrets();
    for sink in sinks() {
        assert!(sink.read(clients).await.expect("it can be asked").is_none(), "nothing is there yet");
        let first = Secret::new("dkuaps-first");
        let reference = sink.write(&first, clients, None).await.expect("it is made");
        assert_eq!(resolve(&reference, clients).await.expect("it is there").expose(), "dkuaps-first");
        // Written again, as an attempt does whose answer was lost.
        sink.write(&first, clients, None).await.expect("the same again");
        sink.write(&Secret::new("dkuaps-second"), clients, None).await.expect("replaced");
        assert_eq!(resolve(&reference, clients).await.expect("it is there").expose(), "dkuaps-second");
        assert!(!sink.remove(&first.fingerprint(), clients).await.expect("asked"), "somebody else's stays");
        let second = Secret::new("dkuaps-second").fingerprint();
        assert!(sink.remove(&second, clients).await.expect("removed"));
        assert!(!sink.remove(&second, clients).await.expect("asked again"), "removed already");
        assert!(sink.read(clients).await.expect("it can be asked").is_none(), "{reference}");
    }
}

async fn a_rotation(lab: Arc<Lab>) {
    for sink in sinks() {
        let reference = sink.write(&Secret::new("before"), lab.secrets(), None).await.expect("it is made");
        let (first, _) = lab.ctx(1);
        assert_eq!(resolve_in(&first, &reference).await.expect("read").expose(), "before");
        sink.write(&Secret::new("after"), lab.secrets(), None).await.expect("rotated");
        let (second, _) = lab.ctx(2);
        let seen = resolve_in(&second, &reference).await.expect("read again");
        assert_eq!(seen.expose(), "after", "{reference}: the second attempt sees the new value");
    }
    // A member of a JSON secret.
    let whole = SecretSink::SecretsManager { secrets_manager: "dss/pair".into() };
    whole.write(&Secret::new(r#"{"id":"AKIA1","secret":"s1"}"#), lab.secrets(), None).await.expect("made");
    let member =
        |key: &str| SecretRef::SecretsManager { secrets_manager: "dss/pair".into(), key: Some(key.into()) };
    assert_eq!(resolve(&member("id"), lab.secrets()).await.expect("there").expose(), "AKIA1");
    let error = resolve(&member("nothing"), lab.secrets()).await.expect_err("no such member");
    assert!(!error.to_string().contains("s1"), "a refusal carries no value: {error}");
}

async fn unusable(lab: Arc<Lab>) {
    let (ctx, _) = lab.ctx(1);
    for reference in [
        SecretRef::SecretsManager { secrets_manager: "nothing/here".into(), key: None },
        SecretRef::Ssm { ssm: "/nothing/here".into() },
        SecretRef::Env { env: "DSSFLOW_TEST_NO_SUCH_VARIABLE".into() },
    ] {
        let error = resolve_in(&ctx, &reference).await.expect_err("it is not there");
        assert_eq!(error.class, ErrorClass::Credentials, "it waits for a person: {error}");
        assert!(
            error.help.is_some() && error.to_string().contains("othing")
                || error.to_string().contains("NO_SUCH")
        );
    }
}

async fn sources(lab: Arc<Lab>) {
    let operator = lab.acting_as(lab.operator()).await;
    let plain = identify(&operator).await.expect("the operator");
    assert!(plain.principal_arn.ends_with(":user/platform-engineer"), "{plain:?}");
    assert_eq!(operator.credentials_ending().await.expect("known"), None, "a key does not end");
    // A key in Secrets Manager is read with the usual chain, of which there is none here.
    let role = |source: CredentialSource| CredentialSource::Role {
        arn: format!("arn:aws:iam::{}:role/dssflow", lab.world.account),
        session_name: Some("nightly".into()),
        external_id: Some("acme-1".into()),
        source: Box::new(source),
    };
    let assumed = lab.acting_as(role(lab.operator())).await;
    let session = identify(&assumed).await.expect("a session of the role");
    assert_eq!(session.principal_arn, format!("arn:aws:iam::{}:role/dssflow", lab.world.account));
    assert!(session.caller_arn.ends_with("assumed-role/dssflow/nightly"), "{session:?}");
    assert_eq!(assumed.credentials_ending().await.expect("known"), None, "its source does not end");
    // Assumed anew, it is the same role in another session.
    assumed.renew_credentials().await;
    assert_eq!(identify(&assumed).await.expect("again").principal_arn, session.principal_arn);
    // A role by a role.
    let chained = lab.acting_as(role(role(lab.operator()))).await;
    identify(&chained).await.expect("a role by a role");
    // What is asked for and is not there says what was asked.
    for (source, says) in [
        (CredentialSource::Profile("dssflow-test-no-such-profile".into()), "dssflow-test-no-such-profile"),
        (CredentialSource::InstanceRole, "the instance's role gives none"),
    ] {
        let error = identify(&lab.acting_as(source).await).await.expect_err("nobody");
        assert_eq!(error.class, ErrorClass::Credentials, "{error}");
        let text = format!("{} {error}", error.code);
        assert!(text.contains(says), "{text}");
    }
}

async fn an_ended_session(lab: Arc<Lab>) {
    let ended = StaticCredentials::new("ASIAEXPIRED00000000", "x");
    let clients = lab.clients.for_credentials(ended.clone()).await;
    let error = identify(&clients).await.expect_err("it has ended");
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Credentials, "ExpiredToken"));
    assert!(dssflow_activities::aws::error::is_renewable(&error.code));
    let source = CredentialSource::Role {
        arn: format!("arn:aws:iam::{}:role/dssflow", lab.world.account),
        session_name: None,
        external_id: None,
        source: Box::new(CredentialSource::Fixed(ended)),
    };
    let error = identify(&lab.acting_as(source).await).await.expect_err("its source has ended");
    assert_eq!(error.class, ErrorClass::Credentials, "{error}");
    assert!(
        error.to_string().contains("ExpiredToken") && error.to_string().contains("role/dssflow"),
        "{error}"
    );
}

async fn the_metadata_options(lab: Arc<Lab>) {
    let input = MetadataOptionsInput { instance_id: lab.world.instance_id.clone() };
    let (ctx, ledger) = lab.ctx(1);
    let recorded = || ledger.recorded();
    assert_eq!(MetadataOptions.probe(&ctx, &input).await, Ok(Probe::Absent));
    let made = MetadataOptions.execute(&ctx, &input).await.expect("closed");
    assert_eq!((made.http_tokens.as_str(), made.hop_limit), ("required", 1));
    assert_eq!(recorded().before[metadata_options::TOKENS], "optional");
    let seen = MetadataOptions.probe(&ctx, &input).await.expect("seen");
    assert!(
        matches!(&seen, Probe::Present { owner: Owner::ThisSite(run), .. } if run.is_empty()),
        "{seen:?}"
    );
    // Once more writes nothing, and another run's undo takes nothing back.
    let (other, others) = lab.ctx(1);
    MetadataOptions.execute(&other, &input).await.expect("closed already");
    assert!(others.recorded().before.is_empty());
    assert_eq!(MetadataOptions.compensate(&other, &input, &Recorded::default()).await, Ok(Undo::NothingToDo));
    assert_eq!(MetadataOptions.compensate(&ctx, &input, &recorded()).await, Ok(Undo::Undone));
    assert_eq!(MetadataOptions.probe(&ctx, &input).await, Ok(Probe::Absent));
    assert_eq!(MetadataOptions.compensate(&ctx, &input, &recorded()).await, Ok(Undo::NothingToDo));
    // Changed by somebody meanwhile.
    MetadataOptions.execute(&ctx, &input).await.expect("closed");
    let call = lab.clients.ec2().modify_instance_metadata_options().instance_id(&input.instance_id);
    call.http_put_response_hop_limit(5)
        .http_tokens("required".into())
        .http_endpoint("enabled".into())
        .send()
        .await
        .expect("somebody changes it");
    let error = MetadataOptions.compensate(&ctx, &input, &recorded()).await.expect_err("changed since");
    assert_eq!(error.code, "ChangedSince");
}

async fn private_files(lab: Arc<Lab>) {
    let (ctx, _) = lab.ctx(1);
    let wrapper = LocalHost::new(lab.world.host_wrapper.clone());
    let host: &dyn dssflow_activities::host::Host = &wrapper;
    let root = HostUser::Root;
    for argv in [vec!["useradd", "-m", "svc"]] {
        let command = dssflow_activities::host::HostCommand::new(root.clone(), argv);
        assert_eq!(host.exec(command).await.expect("runs").status, 0);
    }
    let path = "/home/svc/.aws/credentials";
    host.write_file(&HostUser::Service("svc".into()), path, b"[default]\n", "0600", None)
        .await
        .expect("written");
    let input =
        CredentialsPrivateInput { user: "svc".into(), home: "/home/svc".into(), stranger: "nobody".into() };
    let output = CredentialsPrivate.execute(&ctx, &input).await.expect("private");
    assert_eq!(output.private, [path]);
    // A copy that anybody can read, in a directory that anybody can enter.
    let open = |mode: &str, path: &str| {
        let argv = ["chmod".to_owned(), mode.to_owned(), path.to_owned()];
        dssflow_activities::host::HostCommand::new(root.clone(), argv)
    };
    for command in [open("755", "/home/svc"), open("755", "/home/svc/.aws"), open("644", path)] {
        assert_eq!(host.exec(command).await.expect("runs").status, 0);
    }
    let error = CredentialsPrivate.execute(&ctx, &input).await.expect_err("open");
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::NeedsHuman, "CredentialsReadable"));
    // An account that is not there proves nothing.
    let input = CredentialsPrivateInput { stranger: "ghost".into(), ..input };
    let error = CredentialsPrivate.execute(&ctx, &input).await.expect_err("nothing is proven");
    assert_eq!(error.code, "ProbeUnusable");
}
