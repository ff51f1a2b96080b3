//! An activity that panics with a secret in its hands.

use std::sync::Arc;

use dssflow_activities::secret::{SecretClients, SecretRef, resolve};
use dssflow_engine::prelude::*;

use crate::scan::{Canary, Scanner};

#[tokio::test]
async fn a_panic_with_a_secret_in_hand_says_nothing_of_it() {
    let canary = Canary::new("a secret of an activity that panics");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("secret");
    {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = std::fs::OpenOptions::new();
        let mut made = options.write(true).create_new(true).mode(0o600).open(&file).expect("a file of ours");
        made.write_all(canary.value.as_bytes()).expect("written");
    }
    let workflow = Workflow::<String, ()>::build("panics", |w| {
        let panics = |_ctx: ActivityCtx, file: String| async move {
            let reference = SecretRef::File { file: file.into() };
            let secret = resolve(&reference, SecretClients::default()).await;
            let secret = secret.map_err(|error| ActivityError::terminal("Secret", error.to_string()))?;
            assert!(secret.expose().is_empty(), "the value is not empty: {secret:?} of {reference:?}");
            Ok::<(), ActivityError>(())
        };
        w.step("panics", panics, w.input()).retry(RetryPolicy::attempts(1))
    })
    .expect("a workflow");
    let store = Arc::new(MemoryStore::new(StoreId::generate([3; 16])));
    let engine =
        Engine::builder(Arc::clone(&store) as Arc<dyn Store>).register(&workflow).expect("registers").build();
    let error = engine.run(&workflow, file.display().to_string()).await.expect_err("it panicked");
    let run =
        engine.list(dssflow_engine::store::ListQuery::default()).await.expect("listed").runs[0].run.clone();
    let scanner = Scanner::new(vec![canary]);
    let mut texts = vec![format!("{error:?}\n{error}")];
    texts.push(serde_json::to_string(&engine.view(&run).await.expect("there")).expect("JSON"));
    texts.push(serde_json::to_string(&engine.history(&run, 0).await.expect("there")).expect("JSON"));
    assert!(texts.iter().any(|text| text.contains("panicked")), "{texts:?}");
    for text in &texts {
        let found = scanner.scan("what is kept of a panic", text.as_bytes());
        assert!(found.is_empty(), "{found:?}");
    }
}
