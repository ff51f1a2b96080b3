//! Many tables and many partitions, by the built command against an unkind AWS and a fake DSS, with the memory it takes.
//! `DSSFLOW_TABLES` and `DSSFLOW_PARTITIONS` say how many; `./campaign glue` tries ten thousand and a hundred thousand.

use serde_json::json;

use crate::unkind::{Unkind, count, dataset};

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// How many partitions a partitioned table has.
const EACH: usize = 1_250;

#[tokio::test(flavor = "multi_thread")]
async fn many_tables_and_partitions_in_bounded_memory() {
    let (tables, partitions) = (setting("DSSFLOW_TABLES", 400), setting("DSSFLOW_PARTITIONS", 5_000));
    let partitioned = partitions.div_ceil(EACH).min(tables);
    let world = Unkind::start().await;
    let aws = &world.aws;
    let columns: Vec<(String, &str)> =
        (0..20).map(|n| (format!("c{n}"), (["bigint", "string", "double"])[n % 3])).collect();
    let columns: Vec<(&str, &str)> = columns.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
    for of_project in 0..10 {
        let project = format!("P{of_project}");
        let mut all = Vec::new();
        for number in (of_project..tables).step_by(10) {
            all.push(dataset(&project, &format!("t{number}"), &columns, number < partitioned));
            if number < partitioned {
                let count = partitions / partitioned + usize::from(number < partitions % partitioned);
                let names = (0..count).map(|n| format!("c{n:06}")).collect();
                aws.cloud().directories.insert(format!("{project}/t{number}"), names);
            }
        }
        world.put(&project, all);
    }

    let plan = ["plan", "glue-resync", "-o", "json", "--detailed-exitcode"];
    let empty = world.run(&plan, 2).await;
    assert_eq!(count(&empty.report, "/totals/added"), tables);
    assert_eq!(count(&empty.report, "/totals/partitions/added"), partitions);
    assert_eq!(aws.mutating(), 0, "a plan changes nothing");
    let made = world.run(&["run", "glue-resync", "--yes"], 0).await;
    let parallel = aws.cloud().most_at_once;
    assert!(parallel <= 5, "{parallel} calls at once");
    {
        let cloud = aws.cloud();
        assert_eq!(cloud.tables.len(), tables);
        assert_eq!(cloud.tables.values().map(|t| t.partitions.len()).sum::<usize>(), partitions);
        assert!(cloud.largest_batch <= 100 && (partitions < 1000 || cloud.largest_batch == 100));
    }
    let calls = aws.mutating();
    let equal = world.run(&plan, 0).await;
    assert_eq!(count(&equal.report, "/totals/equal"), tables);
    let again = world.run(&["run", "glue-resync", "--yes"], 0).await;
    assert_eq!(aws.mutating(), calls, "what is equal is left alone");

    // Some of all are spoilt.
    let mut spoilt = 0;
    {
        let mut cloud = aws.cloud();
        for (n, (_, kept)) in cloud.tables.iter_mut().enumerate() {
            match n % 50 {
                0 => kept.input["StorageDescriptor"]["Columns"][0]["Type"] = json!("string"),
                1 => kept.input["StorageDescriptor"]["Location"] = json!("s3://lake/elsewhere"),
                _ => continue,
            }
            kept.version += 1;
            spoilt += 1;
        }
        for kept in cloud.tables.values_mut().filter(|kept| !kept.partitions.is_empty()) {
            let gone: Vec<_> = kept.partitions.keys().step_by(10).cloned().collect();
            for values in &gone {
                kept.partitions.remove(values);
            }
        }
    }
    let before = aws.called("UpdateTable");
    // What lies elsewhere could be somebody else's: it is adopted by name.
    let adopt = ["run", "glue-resync", "--yes", "--set", "glue_resync.adopt=[\"lake.*\"]"];
    let mended = world.run(&adopt, 0).await;
    assert!(aws.called("UpdateTable") - before >= spoilt);
    let after = world.run(&plan, 0).await;
    assert_eq!(count(&after.report, "/totals/equal"), tables);
    assert_eq!(aws.cloud().tables.values().map(|t| t.partitions.len()).sum::<usize>(), partitions);

    let peak = [&empty, &made, &equal, &again, &mended]
        .map(|took| took.peak_mb)
        .into_iter()
        .max()
        .unwrap_or_default();
    println!(
        "glue: tables={tables} partitions={partitions} plan={:.1}s make={:.1}s equal={:.1}s mend={:.1}s spoilt={spoilt} \
         peak_rss_mb={peak} most_calls_at_once={parallel} violations=0",
        empty.seconds, made.seconds, again.seconds, mended.seconds
    );
    assert!(peak < 600, "it took {peak} MB");
}
