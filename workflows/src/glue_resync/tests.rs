//! The graph of a resync, and what is refused.

use dssflow_engine::graph::Step;

use super::*;

const OWN: &str = include_str!("../../examples/resync.yaml");
const SITE: &str = include_str!("../../examples/site.yaml");

fn spec(text: &str) -> ResyncSpec {
    parse(text, "resync.yaml").unwrap_or_else(|e| panic!("{e}"))
}

fn names(workflow: &Workflow) -> Vec<&str> {
    workflow.graph.steps().iter().map(|s| s.name.as_str()).collect()
}

fn find<'a>(workflow: &'a Workflow, name: &str) -> &'a Step {
    workflow.graph.steps().iter().find(|s| s.name.as_str() == name).unwrap_or_else(|| panic!("{name}"))
}

#[test]
fn a_site_gives_what_is_needed_and_no_more() {
    let spec = spec(SITE);
    assert_eq!(spec.glue_resync.connections, ["s3-sales", "s3-marketing"]);
    assert_eq!(spec.dss.url, "http://127.0.0.1:11200");
    assert!(spec.dss.ssh.is_none() && spec.credentials.is_empty(), "{:?}", spec.credentials.keys());
    let text = serde_json::to_string(&spec).unwrap();
    assert!(!text.contains("kits") && !text.contains("cluster"));
    let again: ResyncSpec = serde_json::from_str(&text).unwrap();
    assert_eq!(again, spec);
    let acting = SITE.replace("parallelism: 8", "parallelism: 8\naws: { credentials: ops }");
    assert_eq!(self::spec(&acting).credentials.keys().collect::<Vec<_>>(), ["ops"]);
}

#[test]
fn the_graph_is_as_small_for_ten_thousand_tables() {
    let mut spec = spec(OWN);
    let plain = glue_resync(&spec);
    assert_eq!(names(&plain), ["account", "inventory", "tables", "report", "verdict"]);
    assert!(matches!(&find(&plain, "tables").kind, StepKind::Map { activity, max_concurrency: 4, .. }
        if activity.as_str() == page::SYNC));
    spec.glue_resync.prune = true;
    spec.glue_resync.mode = Mode::Direct;
    spec.glue_resync.verify_athena =
        Some(site::VerifyAthena { workgroup: "primary".into(), output_location: None, tables: 3 });
    let all = glue_resync(&spec);
    assert_eq!(names(&all), ["account", "inventory", "tables", "removed", "report", "queries", "verdict"]);
    // Nothing that changes anything is in the graph of a dry run.
    spec.select(&[], &["s3-sales".into()], true).unwrap();
    let dry = glue_resync(&spec);
    assert_eq!(names(&dry), ["account", "inventory", "tables", "report", "verdict"]);
    assert!(
        matches!(&find(&dry, "tables").kind, StepKind::Map { activity, .. } if activity.as_str() == page::COMPARE)
    );
    // One dataset proves nothing about tables without one.
    spec.glue_resync.dry_run = false;
    spec.select(&["SALES.orders".into()], &[], false).unwrap();
    assert!(!names(&glue_resync(&spec)).contains(&"removed"));
    assert_eq!(glue_resync(&spec).graph.hash(), glue_resync(&spec).graph.hash());
}

#[test]
fn what_cannot_work_is_refused() {
    let refused = |change: &dyn Fn(&str) -> String| {
        let errors = parse(&change(OWN), "resync.yaml").unwrap_err();
        (errors.problems[0].code, errors.problems[0].path.clone())
    };
    assert_eq!(
        refused(&|t| t.replace("mode: dss", "mode: dss\n  include: all")),
        (codes::UNSUPPORTED, "glue_resync.include".into())
    );
    assert_eq!(
        refused(&|t| t.replace("datasets: []", "datasets: [orders]")),
        (codes::WRONG_VALUE, "glue_resync.datasets".into())
    );
    assert_eq!(refused(&|t| format!("{t}aws: {{ credentials: x }}\n")).0, codes::UNKNOWN_REFERENCE);
    assert_eq!(refused(&|t| t.replace("prune:", "prunes:")).0, codes::UNKNOWN_KEY);
    assert_eq!(refused(&|t| t.replace("parallel: 4", "parallel: 99")).0, codes::WRONG_VALUE);
    assert_eq!(refused(&|t| t.replace("{ env: DSS_API_KEY }", "dkuaps-abc")).0, codes::PLAINTEXT_SECRET);
    assert!(spec(OWN).select(&["orders".into()], &[], false).is_err());
}

#[test]
fn how_many_at_once_is_refused_alike_by_a_command_and_by_who_serves_the_store() {
    let told = |errors: &SiteErrors| {
        let all = errors.problems.iter();
        all.map(|p| format!("{} {}: {} ({})", p.code, p.path, p.message, p.help)).collect::<Vec<_>>()
    };
    for parallel in [0, 33, 64] {
        let mut spec = spec(OWN);
        spec.glue_resync.parallel = parallel;
        let given = serde_json::to_string(&spec).unwrap();
        let served = parse(&given, "what workflow glue-resync is given").unwrap_err();
        let alone = spec.select(&[], &[], false).unwrap_err();
        assert_eq!(told(&alone), told(&served));
        let help = "write a whole number from 1 to 32";
        let wanted = format!("DF0104 glue_resync.parallel: {parallel} is out of range ({help})");
        assert_eq!(told(&alone), [wanted]);
    }
    for parallel in [1, 32] {
        let mut spec = spec(OWN);
        spec.glue_resync.parallel = parallel;
        assert!(spec.select(&[], &[], false).is_ok(), "{parallel}");
    }
}

#[test]
fn queries_are_made_of_names() {
    let argument = json!({"tables": [["d", "t"], ["d", "o\"dd"]], "workgroup": "w", "output_location": null});
    let made = queries_of(&argument);
    let inputs: Vec<athena_query::AthenaQueryInput> = serde_json::from_value(made).unwrap();
    assert_eq!(inputs[0].sql, "SELECT * FROM \"d\".\"t\" LIMIT 1");
    assert_eq!(inputs[1].sql, "SELECT * FROM \"d\".\"o\"\"dd\" LIMIT 1");
    assert_eq!((inputs[0].workgroup.as_deref(), &inputs[0].output_location), (Some("w"), &None));
}
