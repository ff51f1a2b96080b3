//! Lets the SDK repeat a call that only looks, once.
//!
//! The engine owns retries, and a call that changes something is never repeated behind its back: what became of it has
//! to be probed first. A look has no such question, and one lost reply should not cost an attempt. So the SDK makes two
//! tries of a read and one of everything else.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeSerializationInterceptorContextMut;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

/// Tries of a call that only looks.
pub const READ_ATTEMPTS: u32 = 2;
/// The longest wait before the second.
const PAUSE: Duration = Duration::from_millis(200);

/// Gives reads a second try. Everything else keeps what the configuration says: one.
#[derive(Debug)]
pub(super) struct ReadsTwice;

/// Whether an operation only looks. By the words AWS uses for such operations; anything else is taken to change
/// something.
pub(super) fn is_read(operation: &str) -> bool {
    ["Describe", "Get", "List", "Head", "BatchGet"].iter().any(|verb| operation.starts_with(verb))
}

#[dyn_dispatch_hint]
impl Intercept for ReadsTwice {
    fn name(&self) -> &'static str {
        "dssflow.ReadsTwice"
    }

    /// Not earlier: which operation it is, is only known by now.
    fn modify_before_serialization(
        &self,
        _: &mut BeforeSerializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if cfg.load::<Metadata>().is_some_and(|operation| is_read(operation.name())) {
            let twice = RetryConfig::standard().with_max_attempts(READ_ATTEMPTS).with_initial_backoff(PAUSE);
            cfg.interceptor_state().store_put(twice);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use aws_config::retry::RetryConfig;
    use aws_smithy_types::Blob;
    use dssflow_engine::activity::ErrorClass;

    use super::super::*;
    use super::*;
    use crate::aws::error::classify;

    async fn clients(endpoint: String) -> AwsClients {
        let mut spec = ClientsConfig::new("eu-west-1");
        spec.endpoint_url = Some(endpoint);
        spec.credentials = Some(StaticCredentials::new("a", "b"));
        AwsClients::connect(&spec).await
    }

    /// A server that fails every call, and counts them.
    async fn failing() -> (String, Arc<AtomicU32>) {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&calls);
        let router = axum::Router::new().fallback(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            async { (axum::http::StatusCode::INTERNAL_SERVER_ERROR, "") }
        });
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("it has an address"));
        drop(tokio::spawn(async move { axum::serve(listener, router).await }));
        (endpoint, calls)
    }

    #[tokio::test]
    async fn a_read_is_tried_twice_and_a_change_once_by_every_client() {
        let (endpoint, calls) = failing().await;
        let aws = clients(endpoint).await;
        macro_rules! tries {
            ($call:expr) => {{
                calls.store(0, Ordering::SeqCst);
                let _failed = Box::pin($call.send()).await.err().expect("every call fails");
                calls.load(Ordering::SeqCst)
            }};
        }
        let reads = [
            ("eks", tries!(aws.eks().describe_cluster().name("x"))),
            ("ec2", tries!(aws.ec2().describe_instances())),
            ("ecr", tries!(aws.ecr().describe_repositories())),
            ("glue", tries!(aws.glue().get_databases())),
            ("athena", tries!(aws.athena().get_query_execution().query_execution_id("x"))),
            ("iam", tries!(aws.iam().get_role().role_name("x"))),
            ("sts", tries!(aws.sts().get_caller_identity())),
            ("s3", tries!(aws.s3().head_bucket().bucket("x"))),
            ("ssm", tries!(aws.ssm().get_parameter().name("x"))),
            ("cloudformation", tries!(aws.cloudformation().describe_stacks())),
            ("secretsmanager", tries!(aws.secretsmanager().get_secret_value().secret_id("x"))),
        ];
        for (service, tries) in reads {
            assert_eq!(tries, READ_ATTEMPTS, "{service}");
        }
        let changes = [
            ("eks", tries!(aws.eks().delete_cluster().name("x"))),
            ("ec2", tries!(aws.ec2().run_instances().min_count(1).max_count(1))),
            ("ecr", tries!(aws.ecr().create_repository().repository_name("x"))),
            ("glue", tries!(aws.glue().delete_database().name("x"))),
            ("athena", tries!(aws.athena().start_query_execution().query_string("x"))),
            ("iam", tries!(aws.iam().create_role().role_name("x").assume_role_policy_document("{}"))),
            ("s3", tries!(aws.s3().put_object().bucket("x").key("x"))),
            ("ssm", tries!(aws.ssm().put_parameter().name("x").value("x"))),
            ("cloudformation", tries!(aws.cloudformation().delete_stack().stack_name("x"))),
            (
                "secretsmanager",
                tries!(aws.secretsmanager().put_secret_value().secret_id("x").secret_binary(Blob::new("x"))),
            ),
        ];
        for (service, tries) in changes {
            assert_eq!(tries, 1, "{service} was repeated behind the engine's back");
        }
    }

    #[tokio::test]
    async fn every_client_has_timeouts_and_one_attempt() {
        let aws = clients("http://127.0.0.1:9".into()).await;
        macro_rules! check {
            ($($service:ident)*) => {$({
                let config = aws.$service().config();
                let timeouts = config.timeout_config().expect("it has timeouts");
                assert_eq!(timeouts.connect_timeout(), Some(CONNECT_TIMEOUT), stringify!($service));
                assert_eq!(timeouts.read_timeout(), Some(READ_TIMEOUT), stringify!($service));
                assert_eq!(timeouts.operation_attempt_timeout(), Some(OPERATION_TIMEOUT), stringify!($service));
                assert_eq!(timeouts.operation_timeout(), Some(OPERATION_TIMEOUT), stringify!($service));
                assert_eq!(config.retry_config().map(RetryConfig::max_attempts), Some(1), stringify!($service));
            })*};
        }
        check!(athena cloudformation ec2 ecr eks glue iam s3 secretsmanager ssm sts);
    }

    /// Time is the test's own: the call hangs for ever, and the timeouts end it.
    #[tokio::test(start_paused = true)]
    async fn a_hung_reply_ends_in_a_timeout() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("it has an address"));
        let held = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((connection, _)) = listener.accept().await {
                held.push(connection);
            }
        });
        let aws = clients(endpoint).await;
        let hung =
            Box::pin(aws.eks().delete_cluster().name("x").send()).await.expect_err("no answer ever comes");
        let error = classify("eks:DeleteCluster", hung);
        assert_eq!(error.class, ErrorClass::Retryable, "{error}");
        assert!(matches!(error.code.as_str(), "Timeout" | "ConnectionFailed"), "{error}");
        held.abort();
    }

    #[test]
    fn reads_are_told_by_their_words() {
        for read in ["DescribeCluster", "GetRole", "ListImages", "HeadBucket", "BatchGetImage"] {
            assert!(is_read(read), "{read}");
        }
        for change in
            ["CreateCluster", "RunInstances", "StartQueryExecution", "BatchDeleteImage", "PutObject"]
        {
            assert!(!is_read(change), "{change}");
        }
    }
}
