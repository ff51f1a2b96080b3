//! R10: every step dies at every moment, is resumed or taken back, and the world is right.

use std::collections::BTreeMap;

use crate::cell::{self, Cell, Outcome};
use crate::learn::Learned;
use crate::report::Report;
use crate::settings::{self, Mode, index, salt};
use crate::walk::{At, Visit, in_both};
use crate::world::Tamper;

struct Matrix {
    mode: Mode,
    report: Report,
}

/// How many cells of a step are tried; none says all. Commands on the host are slow: a step that runs some has fewer.
fn quota(steps: usize, learned: &Learned) -> Option<usize> {
    match settings::number::<usize>("DSSFLOW_CELLS", 340) {
        0 => None,
        wanted => {
            let usual = wanted.div_ceil(steps.max(1));
            Some(if learned.forward.host > 0 { usual.div_ceil(2) } else { usual + usual.div_ceil(3) })
        }
    }
}

/// A few cells of a step. Each point of the matrix is served in turn, the lost replies first; the seed says which of
/// the many cells of a point.
fn choose(cells: Vec<Cell>, quota: usize, salt: u64) -> Vec<Cell> {
    const ORDER: [&str; 10] = ["C2", "U2", "C3", "C1", "U1", "U3", "C0", "C4", "U0", "U4"];
    let mut by_point: BTreeMap<usize, Vec<Cell>> = BTreeMap::new();
    for cell in cells {
        let rank = ORDER.iter().position(|known| *known == cell.point.name()).unwrap_or(ORDER.len());
        by_point.entry(rank).or_default().push(cell);
    }
    let mut groups: Vec<Vec<Cell>> = by_point.into_values().collect();
    // The first two are always served; with which of the others it goes on is the seed's choice.
    let steady = groups.len().min(2);
    let others = groups.len() - steady;
    if others > 0 {
        groups[steady..].rotate_left(index(salt, others));
    }
    let mut chosen = Vec::new();
    while chosen.len() < quota && groups.iter().any(|group| !group.is_empty()) {
        for group in groups.iter_mut().filter(|group| !group.is_empty()) {
            if chosen.len() < quota {
                chosen.push(group.remove(index(salt.rotate_right(7), group.len())));
            }
        }
    }
    chosen
}

impl Visit for Matrix {
    async fn before(&mut self, at: &At<'_>) -> Result<(), String> {
        let Some(learned) = at.learned().await? else { return Ok(()) };
        self.report.steps += 1;
        let mut all = cell::all(&learned);
        all.retain(|cell| settings::wants(&cell.id(self.mode, at.step)));
        self.report.enumerated += all.len() as u64;
        let chosen = match quota(at.steps, &learned) {
            Some(quota) if settings::only().is_none() => choose(all, quota, salt(&at.name())),
            _ => all,
        };
        let untouched = Tamper::default();
        for cell in chosen {
            let id = cell.id(self.mode, at.step);
            let outcome =
                Box::pin(cell::attempt(at.world, at.step, at.graph, &learned, cell, &untouched)).await;
            at.world.tidy(at.now).await;
            let Outcome::Judged(found) = outcome else {
                self.report.not_reached += 1;
                continue;
            };
            self.report.case(cell.point.name());
            if !found.is_empty() {
                self.report.wrong(&id, &found, "matrix");
            }
        }
        Ok(())
    }

    async fn after(&mut self, _: &At<'_>) {}
}

#[test]
fn every_step_dies_at_every_moment_and_the_world_is_right() {
    let visitor = |mode| Matrix { mode, report: Report::new("crash_matrix") };
    let report = in_both("crash_matrix", visitor, |visit| visit.report);
    println!("{report}");
    assert!(report.violations.is_empty(), "{report}");
    assert_eq!(report.fired, report.cases, "a crash that did not take place is no case");
    let least = settings::number("DSSFLOW_CELLS", 400);
    assert!(settings::only().is_some() || report.cases >= least.max(1), "too few cells: {report}");
}

#[test]
fn a_choice_serves_many_points_and_takes_no_cell_twice() {
    use crate::cell::{Ending, Point};
    use crate::life::Moment;
    let cells: Vec<Cell> =
        [Moment::Started, Moment::Recorded(0), Moment::Done, Moment::UndoStarted, Moment::Undone]
            .into_iter()
            .flat_map(|moment| [false, true].map(|after| Point::Write { moment, after }))
            .flat_map(|point| [Ending::Resume, Ending::Rollback].map(|ending| Cell { point, ending }))
            .collect();
    for salt in 0..50 {
        let mut chosen = choose(cells.clone(), 5, salt);
        let points: std::collections::BTreeSet<&str> = chosen.iter().map(|cell| cell.point.name()).collect();
        assert_eq!((chosen.len(), points.len()), (5, 5), "{chosen:?}");
        chosen = choose(cells.clone(), 100, salt);
        chosen.sort();
        chosen.dedup();
        assert_eq!(chosen.len(), cells.len());
    }
}
