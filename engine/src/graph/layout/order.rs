//! The order within layers, for few crossings: medians of neighbours from above and from below in turn, then swaps of
//! neighbours; the best order that was met is kept.

use super::Sheet;

/// How much is done: items times sweeps. A thousand boxes stay far below the time that is promised.
const WORK: usize = 60_000;
/// The most sweeps.
const SWEEPS: usize = 24;
/// Sweeps without a better order after which it is left.
const PATIENCE: usize = 6;
/// More items than this and neighbours are not swapped.
const SWAP_UP_TO: usize = 3_000;

/// Orders every layer.
pub(super) fn reduce_crossings(sheet: &mut Sheet) {
    let mut at = positions(sheet);
    let mut best = (crossings(sheet, &at), sheet.layers.clone());
    let sweeps = (WORK / sheet.widths.len().max(1)).clamp(4, SWEEPS);
    let mut idle = 0;
    for sweep in 0..sweeps {
        let downwards = sweep % 2 == 0;
        let depth = sheet.layers.len();
        for step in 1..depth {
            let layer = if downwards { step } else { depth - 1 - step };
            // Where medians are equal the order stays in one pair of sweeps and turns in the next.
            arrange(sheet, &mut at, layer, downwards, sweep % 4 >= 2);
        }
        if sheet.widths.len() <= SWAP_UP_TO {
            swap_neighbours(sheet, &mut at);
        }
        let now = crossings(sheet, &at);
        if now < best.0 {
            best = (now, sheet.layers.clone());
            idle = 0;
        } else {
            idle += 1;
        }
        if best.0 == 0 || idle >= PATIENCE {
            break;
        }
    }
    sheet.layers = best.1;
}

fn positions(sheet: &Sheet) -> Vec<u32> {
    let mut at = vec![0; sheet.widths.len()];
    for layer in &sheet.layers {
        for (position, &item) in (0..).zip(layer) {
            at[item] = position;
        }
    }
    at
}

/// Sorts one layer by where its neighbours stand in the one before it.
fn arrange(sheet: &mut Sheet, at: &mut [u32], layer: usize, downwards: bool, turn: bool) {
    let neighbours = if downwards { &sheet.up } else { &sheet.down };
    let boxes = sheet.boxes;
    let mut near = Vec::new();
    let mut keyed: Vec<(f64, u32, usize)> = Vec::with_capacity(sheet.layers[layer].len());
    for &item in &sheet.layers[layer] {
        near.clear();
        near.extend(neighbours[item].iter().map(|&n| at[n]));
        near.sort_unstable();
        // What is connected to nothing there stays about where it is.
        let key = median(&near).unwrap_or_else(|| f64::from(at[item]));
        keyed.push((key, if turn { u32::MAX - at[item] } else { at[item] }, item));
    }
    keyed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    // Of what hangs on one place the lines that go on come into the middle: a trunk between its branches.
    for alike in keyed.chunk_by_mut(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        alike.sort_by_key(|(_, _, item)| *item >= boxes);
        let branches = alike.iter().filter(|(_, _, item)| *item < boxes).count();
        alike[branches / 2..].rotate_left(branches - branches / 2);
    }
    for (position, (slot, (_, _, item))) in (0..).zip(sheet.layers[layer].iter_mut().zip(keyed)) {
        *slot = item;
        at[item] = position;
    }
}

/// The middle; of an even number the place between the two middle ones, nearer to the side that is closer together.
fn median(near: &[u32]) -> Option<f64> {
    let middle = near.len() / 2;
    let place = |n: usize| f64::from(near[n]);
    Some(match near.len() {
        0 => return None,
        n if n % 2 == 1 => place(middle),
        2 => f64::midpoint(place(0), place(1)),
        n => {
            let (left, right) = (place(middle - 1) - place(0), place(n - 1) - place(middle));
            if left + right > 0.0 {
                (place(middle - 1) * right + place(middle) * left) / (left + right)
            } else {
                place(middle)
            }
        }
    })
}

/// Swaps neighbours as long as that takes crossings away.
fn swap_neighbours(sheet: &mut Sheet, at: &mut [u32]) {
    for _ in 0..4 {
        let mut better = false;
        for layer in 0..sheet.layers.len() {
            for n in 1..sheet.layers[layer].len() {
                let (left, right) = (sheet.layers[layer][n - 1], sheet.layers[layer][n]);
                let (mut kept, mut swapped) = (0, 0);
                for neighbours in [&sheet.up, &sheet.down] {
                    for &a in &neighbours[left] {
                        for &b in &neighbours[right] {
                            kept += u32::from(at[a] > at[b]);
                            swapped += u32::from(at[a] < at[b]);
                        }
                    }
                }
                if swapped < kept {
                    sheet.layers[layer].swap(n - 1, n);
                    at.swap(left, right);
                    better = true;
                }
            }
        }
        if !better {
            return;
        }
    }
}

/// How many stretches of line cross, after Barth, Jünger and Mutzel: a sum over a tree for each layer.
fn crossings(sheet: &Sheet, at: &[u32]) -> u64 {
    let mut sum = 0;
    let mut ends = Vec::new();
    let mut tree: Vec<u64> = Vec::new();
    for pair in sheet.layers.windows(2) {
        ends.clear();
        for &item in &pair[0] {
            let first = ends.len();
            ends.extend(sheet.down[item].iter().map(|&below| at[below]));
            ends[first..].sort_unstable();
        }
        let mut leaves = 1;
        while leaves < pair[1].len() {
            leaves *= 2;
        }
        tree.clear();
        tree.resize(2 * leaves, 0);
        for &end in &ends {
            let mut node = leaves + usize::try_from(end).expect("an item of a layer");
            tree[node] += 1;
            while node > 1 {
                // What stands right of it came before it from further left.
                if node % 2 == 0 {
                    sum += tree[node + 1];
                }
                node /= 2;
                tree[node] += 1;
            }
        }
    }
    sum
}
