//! How long a run is likely to take, from what its steps usually take.

use std::time::Duration;

use dssflow_engine::graph::Graph;

/// The longest way through the graph, by the usual time of each step. What a step holds while it waits for a lock does
/// not count, so a run takes at least about as long.
pub fn expected_duration(graph: &Graph) -> Duration {
    let mut done_at = vec![0_u64; graph.len()];
    for &ix in graph.order() {
        let before = graph.dependencies(ix).iter().map(|d| done_at[*d as usize]).max().unwrap_or(0);
        done_at[ix as usize] = before.saturating_add(graph.step(ix).expected_ms.unwrap_or(0));
    }
    Duration::from_millis(done_at.into_iter().max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bootstrap_takes_more_than_its_longest_step_and_less_than_a_day() {
        let site = crate::parse(include_str!("../examples/site.yaml"), "site.yaml").unwrap();
        let graph = crate::bootstrap(&site).unwrap().graph;
        let longest = graph.steps().iter().filter_map(|s| s.expected_ms).max().unwrap_or(0);
        let all: u64 = graph.steps().iter().filter_map(|s| s.expected_ms).sum();
        let expected = u64::try_from(expected_duration(&graph).as_millis()).unwrap();
        assert!(longest < expected && expected < all, "{longest} < {expected} < {all}");
    }
}
