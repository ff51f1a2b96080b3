//! Secrets: never written back unreadable, and seen when they are other ones.

use std::fs;

use dssflow_engine::activity::{ErrorClass, Owner, Probe, Undo};
use dssflow_sandbox::dss::behaviour::{Behaviour, Redaction};
use reqwest::Method;
use serde_json::json;

use super::lab::{Lab, by_hand, comparable, eks_cluster};

const FORMS: [Redaction; 3] = [Redaction::Encrypted, Redaction::Masked, Redaction::LeftOut];

fn redacts(lab: &Lab, redaction: Redaction) {
    lab.dss.behave(Behaviour { redaction, ..Behaviour::default() }).unwrap();
}

#[tokio::test]
async fn the_secrets_of_a_connection_survive_every_write_however_they_are_shown() {
    for form in FORMS {
        let mut lab = Lab::open(14).await;
        redacts(&lab, form);
        lab.cloud.add_cluster(eks_cluster());
        let before = lab.dss.snapshot();
        lab.wire().await;
        // Two writes after the creation, the second by the link; then a query with what DSS holds.
        assert_eq!(lab.cloud.seen().queries[1].secret_key, "hunter2-two", "{form:?}");
        for (name, undo) in lab.undo().await {
            undo.unwrap_or_else(|error| panic!("{form:?}: {name}: {error}"));
        }
        assert_eq!(comparable(lab.dss.snapshot()), comparable(before), "{form:?}");
    }
}

#[tokio::test]
async fn a_masked_secret_of_others_keeps_the_document_from_being_written() {
    for form in FORMS {
        let mut lab = Lab::open(14).await;
        let mut settings = by_hand(&lab, Method::GET, "/admin/general-settings", None).await;
        settings["mailSettings"] = json!({"password": "their mail secret", "host": "h"});
        settings["ldapSettings"] = json!({"bindPassword": "their ldap secret"});
        by_hand(&lab, Method::PUT, "/admin/general-settings", Some(&settings)).await;
        redacts(&lab, form);
        let before = lab.dss.snapshot();
        let ended = lab.step("dss.default-cluster", json!({"cluster_id": "x"})).await;
        if form == Redaction::Masked {
            let error = ended.unwrap_err();
            assert_eq!((error.class, error.code.as_str()), (ErrorClass::NeedsHuman, "RedactedSecret"));
            assert!(error.no_effect && error.help.is_some(), "{error:?}");
            assert!(error.message.contains("mailSettings/password, ldapSettings/bindPassword"), "{error}");
            assert_eq!(lab.dss.snapshot(), before, "nothing was written");
        } else {
            ended.unwrap_or_else(|error| panic!("{form:?}: {error}"));
            assert_eq!(lab.dss.snapshot()["generalSettings"]["defaultK8sClusterId"], "x");
        }
        for (name, undo) in lab.undo().await {
            undo.unwrap_or_else(|error| panic!("{form:?}: {name}: {error}"));
        }
        for (pointer, secret) in [
            ("/mailSettings/password", "their mail secret"),
            ("/ldapSettings/bindPassword", "their ldap secret"),
        ] {
            assert_eq!(lab.dss.general_secret(pointer).as_deref(), Some(secret), "{form:?}");
        }
    }
}

#[tokio::test]
async fn a_secret_of_a_connection_that_is_not_the_sites_is_not_overwritten() {
    for form in [Redaction::Encrypted, Redaction::Masked] {
        let mut lab = Lab::open(14).await;
        lab.dss
            .behave(Behaviour { drop_unknown_keys: false, redaction: form, ..Behaviour::default() })
            .unwrap();
        lab.step("dss.s3-connection", lab.s3("one")).await.unwrap();
        // Somebody gives the connection a second secret by hand.
        let mut connection = by_hand(&lab, Method::GET, "/admin/connections/one", None).await;
        connection["params"]["secretKey"] = json!("hunter2-one");
        connection["params"]["password"] = json!("of their own");
        by_hand(&lab, Method::PUT, "/admin/connections/one", Some(&connection)).await;
        let before = lab.dss.snapshot();
        let link =
            json!({"s3_connection": "one", "athena_connection": "a", "credentials": lab.credentials("one")});
        let error = lab.step("dss.s3-athena-link", link).await.unwrap_err();
        assert_eq!(
            (error.class, error.code.as_str()),
            (ErrorClass::NeedsHuman, "RedactedSecret"),
            "{form:?}"
        );
        assert!(error.message.contains("params/password") && !error.message.contains("secretKey"), "{error}");
        assert_eq!(lab.dss.snapshot(), before);
    }
}

#[tokio::test]
async fn other_secrets_of_the_site_are_seen_and_written_and_the_owner_stays() {
    let mut lab = Lab::open(14).await;
    lab.step("dss.s3-connection", lab.s3("one")).await.unwrap();
    let description =
        |lab: &Lab| lab.dss.snapshot()["connections"]["one"]["description"].as_str().unwrap().to_owned();
    let first = description(&lab);
    assert!(first.contains("dssflow:secret=") && !first.contains("hunter2"), "{first}");

    // The key was rotated: the file holds another secret, and a later run of the site looks.
    fs::write(lab.dir.join("one-secret"), "hunter3-one").unwrap();
    lab.run = "run-2";
    let (name, input, ledger) = lab.steps.last().unwrap().clone();
    let ctx = lab.context(&name, &ledger);
    assert_eq!(lab.activity(&name).probe(&ctx, &input).await.unwrap(), Probe::Absent);
    let ledger = std::sync::Arc::default();
    lab.attempt(&name, &input, &ledger).await.unwrap();
    let second = description(&lab);
    assert_ne!(first, second);
    let found = lab.activity(&name).probe(&lab.context(&name, &ledger), &input).await.unwrap();
    assert!(
        matches!(&found, Probe::Present { owner: Owner::ThisSite(run), .. } if run == "run-1"),
        "{found:?}"
    );
    // DSS holds the new one: a pair that borrows it asks with it.
    let pair = json!({"name": "a", "s3_connection": "one", "region": "eu-west-1", "output_location": "s3://r/",
                      "driver_directory": "/opt/athena"});
    lab.step("dss.athena-connection", pair).await.unwrap();
    lab.step("dss.sql-check", json!({"connection": "a"})).await.unwrap();
    assert_eq!(lab.cloud.seen().queries[0].secret_key, "hunter3-one");
    // Nothing of it is in what the run records.
    let recorded = ledger.recorded.lock().unwrap().clone();
    let text = format!("{recorded:?} {:?}", ledger.heartbeat.lock().unwrap());
    assert!(!text.contains("hunter") && !text.contains("AKIA"), "{text}");
    // Its undo cannot bring the old one back, and says so.
    let ctx = lab.context(&name, &ledger);
    let error = lab.activity(&name).compensate(&ctx, &input, &recorded).await.unwrap_err();
    assert!(error.code == "ChangedSince" && error.message.contains("params/secretKey"), "{error}");
}

#[tokio::test]
async fn another_api_key_seals_anew_and_changes_nothing_else() {
    let mut lab = Lab::open(14).await;
    lab.step("dss.s3-connection", lab.s3("one")).await.unwrap();
    let other = lab.dss.api_keys().create("another", "").key.unwrap();
    lab.target["api_key"] = super::lab::secret(&lab.dir, "other-key", &other);
    lab.run = "run-2";
    let input = lab.input(lab.s3("one"));
    let ledger = std::sync::Arc::default();
    lab.attempt("dss.s3-connection", &input, &ledger).await.unwrap();
    let recorded = ledger.recorded.lock().unwrap().clone();
    assert!(recorded.before.is_empty(), "the same secret is no change to take back: {recorded:?}");
    let ctx = lab.context("dss.s3-connection", &ledger);
    let undo = lab.activity("dss.s3-connection").compensate(&ctx, &input, &recorded).await;
    assert_eq!(undo, Ok(Undo::NothingToDo));
}

#[tokio::test]
async fn keys_that_a_later_run_changed_in_a_connection_are_put_back() {
    let mut lab = Lab::open(14).await;
    lab.step("dss.s3-connection", lab.s3("one")).await.unwrap();
    let before = lab.dss.snapshot();
    lab.run = "run-2";
    let mut input = lab.input(lab.s3("one"));
    input["bucket"] = json!("another-bucket");
    let ledger = std::sync::Arc::default();
    lab.attempt("dss.s3-connection", &input, &ledger).await.unwrap();
    assert_eq!(lab.dss.snapshot()["connections"]["one"]["params"]["chbucket"], "another-bucket");
    let recorded = ledger.recorded.lock().unwrap().clone();
    let ctx = lab.context("dss.s3-connection", &ledger);
    let activity = lab.activity("dss.s3-connection");
    assert_eq!(activity.compensate(&ctx, &input, &recorded).await, Ok(Undo::Undone));
    assert_eq!(lab.dss.snapshot(), before);
    assert_eq!(activity.compensate(&ctx, &input, &recorded).await, Ok(Undo::NothingToDo));
}
