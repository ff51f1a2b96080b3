//! Where everything stands from left to right, given the order; and the picture as a whole.
//!
//! After Brandes and Köpf: items are strung into verticals, trunks before all else, and the verticals pushed together.
//! That is done from above and from below, leaning left and leaning right; an item comes to the middle of the four. Blocks
//! are placed by longest ways, as their second paper has it, so that boxes of any width keep their distance.

use std::collections::BTreeSet;

use super::{Layout, Line, MARGIN, Net, Place, Point, Sheet, Size};

/// How often everything is then moved closer to its neighbours.
const ROUNDS: usize = 24;
/// How much a line wants to be straight: between bends, at one end, between boxes, between boxes that have nobody else.
const PULL_BENDS: f64 = 8.0;
const PULL_END: f64 = 2.0;
const PULL_BOXES: f64 = 1.0;
const PULL_PAIR: f64 = 4.0;
/// The height between two layers: at least, at most, and how much of the longest way sideways is added.
const FALL: f64 = 34.0;
const MAX_FALL: f64 = 110.0;
const SLOPE: f64 = 0.055;

/// The centre of each item.
pub(super) fn sideways(sheet: &Sheet) -> Vec<f64> {
    let begin = verticals(sheet);
    let mut centres = begin.clone();
    let depth = sheet.layers.len();
    for round in 0..ROUNDS {
        for step in 0..depth {
            settle(sheet, &mut centres, if round % 2 == 0 { step } else { depth - 1 - step });
        }
    }
    // Large fans drift along their trunks, which would take many more rounds to come back.
    let width = |centres: &[f64]| {
        let (left, right) = ends(sheet, centres);
        right - left
    };
    if width(&centres) > width(&begin) {
        centres = begin;
    }
    straighten(sheet, &mut centres);
    centres
}

/// The left and the right end of everything.
fn ends(sheet: &Sheet, centres: &[f64]) -> (f64, f64) {
    let halves = || centres.iter().zip(&sheet.widths).map(|(x, width)| (x, width / 2.0));
    let left = halves().map(|(x, half)| x - half).fold(f64::INFINITY, f64::min);
    (left, halves().map(|(x, half)| x + half).fold(f64::NEG_INFINITY, f64::max))
}

/// The first places: verticals of items, the middle of four tries.
fn verticals(sheet: &Sheet) -> Vec<f64> {
    let crossed = crossed(sheet);
    let tries = [(false, false), (false, true), (true, false), (true, true)];
    let mut found: Vec<(bool, Vec<f64>)> = tries
        .into_iter()
        .map(|(upwards, mirrored)| {
            let view = View::new(sheet, upwards, mirrored);
            let blocks = view.align(&crossed);
            let mut centres = view.compact(&blocks);
            if mirrored {
                for x in &mut centres {
                    *x = -*x;
                }
            }
            (mirrored, centres)
        })
        .collect();
    // All are moved to the narrowest: those that lean left by their left side, the others by their right.
    let all = found.iter().map(|(_, centres)| ends(sheet, centres));
    let narrowest = all.min_by(|a, b| (a.1 - a.0).total_cmp(&(b.1 - b.0)));
    let (left, right) = narrowest.expect("four were tried");
    for (mirrored, centres) in &mut found {
        let (l, r) = ends(sheet, centres);
        let by = if *mirrored { right - r } else { left - l };
        for x in centres.iter_mut() {
            *x += by;
        }
    }
    (0..sheet.widths.len())
        .map(|item| {
            let mut four: Vec<f64> = found.iter().map(|(_, centres)| centres[item]).collect();
            four.sort_by(f64::total_cmp);
            f64::midpoint(four[1], four[2])
        })
        .collect()
}

/// Stretches of line from a box that cross one between two bends of a trunk, by their ends. They give way.
fn crossed(sheet: &Sheet) -> BTreeSet<(usize, usize)> {
    let mut found = BTreeSet::new();
    let mut position = vec![0; sheet.widths.len()];
    for layer in &sheet.layers {
        for (n, &item) in layer.iter().enumerate() {
            position[item] = n;
        }
    }
    for layer in &sheet.layers {
        // Ends above of the trunks, by their ends below.
        let inner: Vec<(usize, usize)> = (0..)
            .zip(layer)
            .filter_map(|(n, &item)| sheet.inner(&sheet.up, item).map(|above| (n, position[above])))
            .collect();
        for (n, &item) in layer.iter().enumerate() {
            let next = inner.partition_point(|&(below, _)| below < n);
            for &above in &sheet.up[item] {
                if sheet.is_bend(item) && sheet.is_bend(above) {
                    continue;
                }
                let at = position[above];
                let left = inner[..next].iter().any(|&(_, trunk)| trunk > at);
                let right = inner[next..].iter().any(|&(below, trunk)| below > n && trunk < at);
                if left || right {
                    found.insert((above, item));
                }
            }
        }
    }
    found
}

/// Items that are to stand in one vertical, by the first of each item's block.
struct Blocks {
    first: Vec<usize>,
}

/// A sheet as it is, upside down, mirrored, or both.
struct View<'a> {
    sheet: &'a Sheet,
    upwards: bool,
    layers: Vec<Vec<usize>>,
    position: Vec<usize>,
}

impl<'a> View<'a> {
    fn new(sheet: &'a Sheet, upwards: bool, mirrored: bool) -> Self {
        let mut layers = sheet.layers.clone();
        if upwards {
            layers.reverse();
        }
        if mirrored {
            for layer in &mut layers {
                layer.reverse();
            }
        }
        let mut position = vec![0; sheet.widths.len()];
        for layer in &layers {
            for (n, &item) in layer.iter().enumerate() {
                position[item] = n;
            }
        }
        Self { sheet, upwards, layers, position }
    }

    /// Each item joins the block of its middle neighbour in the layer before, unless blocks would cross.
    fn align(&self, crossed: &BTreeSet<(usize, usize)>) -> Blocks {
        let (before, after) = if self.upwards {
            (&self.sheet.down, &self.sheet.up)
        } else {
            (&self.sheet.up, &self.sheet.down)
        };
        let mut first: Vec<usize> = (0..self.position.len()).collect();
        let mut taken = vec![false; self.position.len()];
        for layer in &self.layers {
            let mut limit = None;
            for &item in layer {
                let mut near = match self.sheet.inner(before, item) {
                    Some(trunk) => vec![trunk],
                    None => before[item].clone(),
                };
                near.sort_unstable_by_key(|&n| self.position[n]);
                // One, or the two in the middle of an even number.
                let middle = near.len().saturating_sub(1) / 2;
                for &other in near.iter().take(near.len() / 2 + 1).skip(middle) {
                    let ends = if self.upwards { (item, other) } else { (other, item) };
                    let trunk = self.sheet.inner(after, other).is_some_and(|next| next != item);
                    let free = limit.is_none_or(|limit| limit < self.position[other]);
                    if first[item] == item && free && !trunk && !taken[other] && !crossed.contains(&ends) {
                        first[item] = first[other];
                        taken[other] = true;
                        limit = Some(self.position[other]);
                    }
                }
            }
        }
        Blocks { first }
    }

    /// Places blocks as far left as they go, then as far right as they go without moving others.
    fn compact(&self, blocks: &Blocks) -> Vec<f64> {
        let count = self.position.len();
        let mut after: Vec<Vec<(usize, f64)>> = vec![Vec::new(); count];
        let mut missing = vec![0_usize; count];
        for layer in &self.layers {
            for pair in layer.windows(2) {
                let (left, right) = (blocks.first[pair[0]], blocks.first[pair[1]]);
                after[left].push((right, self.sheet.distance(pair[0], pair[1])));
                missing[right] += 1;
            }
        }
        let firsts = || (0..count).filter(|&item| blocks.first[item] == item);
        let mut order: Vec<usize> = firsts().filter(|&block| missing[block] == 0).collect();
        let mut x = vec![0.0_f64; count];
        let mut next = 0;
        while let Some(&block) = order.get(next) {
            next += 1;
            for &(right, distance) in &after[block] {
                x[right] = x[right].max(x[block] + distance);
                missing[right] -= 1;
                if missing[right] == 0 {
                    order.push(right);
                }
            }
        }
        debug_assert_eq!(order.len(), firsts().count(), "blocks do not cross");
        for &block in order.iter().rev() {
            let right = after[block].iter().map(|&(right, distance)| x[right] - distance);
            let right = right.fold(f64::INFINITY, f64::min);
            if right.is_finite() {
                x[block] = x[block].max(right);
            }
        }
        blocks.first.iter().map(|&first| x[first]).collect()
    }
}

/// Moves the items of a layer to the middle of their neighbours, as far as the others let them: a regression with a fixed
/// order, which pooling of neighbours that get in each other's way solves exactly.
fn settle(sheet: &Sheet, centres: &mut [f64], layer: usize) {
    /// Items that stand side by side without room: their common place, how much they want it, how many they are.
    struct Block {
        place: f64,
        pull: f64,
        items: usize,
    }
    let items = &sheet.layers[layer];
    let mut blocks: Vec<Block> = Vec::with_capacity(items.len());
    let mut offsets = Vec::with_capacity(items.len());
    let mut offset = 0.0;
    for (n, &item) in items.iter().enumerate() {
        if n > 0 {
            offset += sheet.distance(items[n - 1], item);
        }
        offsets.push(offset);
        let (mut sum, mut pull) = (0.0, 0.0);
        for (neighbours, back) in [(&sheet.up[item], &sheet.down), (&sheet.down[item], &sheet.up)] {
            let ends = neighbours.iter().filter(|&&other| !sheet.is_bend(other)).count();
            for &other in neighbours {
                let p = match (sheet.is_bend(item), sheet.is_bend(other)) {
                    (true, true) => PULL_BENDS,
                    // Many boxes at one trunk do not bend it more than one.
                    (true, false) => PULL_END / f64::from(u32::try_from(ends).unwrap_or(u32::MAX)),
                    (false, true) => PULL_END,
                    (false, false) if neighbours.len() == 1 && back[other].len() == 1 => PULL_PAIR,
                    (false, false) => PULL_BOXES,
                };
                sum += p * centres[other];
                pull += p;
            }
        }
        let mut block = if pull > 0.0 {
            Block { place: sum / pull - offset, pull, items: 1 }
        } else {
            Block { place: centres[item] - offset, pull: 0.1, items: 1 }
        };
        while let Some(before) = blocks.pop_if(|before| before.place > block.place) {
            let pull = before.pull + block.pull;
            block = Block {
                place: (before.place * before.pull + block.place * block.pull) / pull,
                pull,
                items: before.items + block.items,
            };
        }
        blocks.push(block);
    }
    let mut rest = items.iter().zip(offsets);
    for block in blocks {
        for (&item, offset) in rest.by_ref().take(block.items) {
            centres[item] = block.place + offset;
        }
    }
}

/// Puts the bends of a trunk into one vertical where there is one that is free in all their layers, else as many as go.
fn straighten(sheet: &Sheet, centres: &mut [f64]) {
    let mut position = vec![0; sheet.widths.len()];
    for layer in &sheet.layers {
        for (n, &item) in layer.iter().enumerate() {
            position[item] = n;
        }
    }
    let free = |centres: &[f64], item: usize| {
        let (layer, n) = (&sheet.layers[sheet.layer_of[item]], position[item]);
        let left = n.checked_sub(1).map_or(f64::MIN, |n| centres[layer[n]] + sheet.distance(layer[n], item));
        let right = layer.get(n + 1).map_or(f64::MAX, |&r| centres[r] - sheet.distance(item, r));
        (left, right)
    };
    for trunk in sheet.leaving.values().chain(sheet.entering.values()).chain(&sheet.rows()) {
        let mut first = 0;
        while first < trunk.len() {
            let (mut left, mut right) = free(centres, trunk[first]);
            let (mut end, mut sum, mut count) = (first + 1, centres[trunk[first]], 1.0);
            while let Some(&item) = trunk.get(end) {
                let (l, r) = free(centres, item);
                if l.max(left) > r.min(right) {
                    break;
                }
                (left, right) = (l.max(left), r.min(right));
                sum += centres[item];
                count += 1.0;
                end += 1;
            }
            // Rounding can leave a place that is free by less than nothing; then everything stays.
            if left <= right {
                let common = (sum / count).clamp(left, right);
                for &item in &trunk[first..end] {
                    centres[item] = common;
                }
            }
            first = end;
        }
    }
}

/// The picture: heights of layers and of what is between them, and the lines by their points.
pub(super) fn finish(
    sheet: &Sheet,
    sizes: &[Size],
    edges: &[(usize, usize)],
    net: &Net,
    centres: &[f64],
) -> Layout {
    let half = |item: usize| sheet.widths[item] / 2.0;
    let (left, right) = ends(sheet, centres);
    let x_of = |item: usize| centres[item] - left + MARGIN;

    // Upper and lower edge of each layer.
    let mut bands: Vec<(f64, f64)> = Vec::with_capacity(sheet.layers.len());
    let mut y = MARGIN;
    for layer in &sheet.layers {
        let boxes = layer.iter().filter(|&&item| !sheet.is_bend(item));
        let height = boxes.map(|&item| sizes[item].height).fold(0.0, f64::max);
        bands.push((y, y + height));
        let farthest = layer
            .iter()
            .flat_map(|&a| sheet.down[a].iter().map(move |&b| (centres[a] - centres[b]).abs()))
            .fold(0.0, f64::max);
        y += height + (FALL + farthest * SLOPE).min(MAX_FALL);
    }
    let places: Vec<Place> = sizes
        .iter()
        .enumerate()
        .map(|(item, &size)| {
            let (top, bottom) = bands[sheet.layer_of[item]];
            Place { x: x_of(item) - half(item), y: f64::midpoint(top, bottom) - size.height / 2.0, size }
        })
        .collect();
    let lines = edges
        .iter()
        .map(|&(from, to)| {
            let points = sheet
                .way(net, from, to)
                .into_iter()
                .flat_map(|item| {
                    let (mut top, mut bottom) = bands[sheet.layer_of[item]];
                    if item == from {
                        top = places[from].y + sizes[from].height;
                    } else if item == to {
                        bottom = places[to].y;
                    }
                    [Point { x: x_of(item), y: top }, Point { x: x_of(item), y: bottom }]
                })
                .collect();
            Line { from, to, points }
        })
        .collect();
    let height = bands.last().map_or(MARGIN, |(_, bottom)| *bottom) + MARGIN;
    let width = if sizes.is_empty() { 2.0 * MARGIN } else { right - left + 2.0 * MARGIN };
    Layout { width, height, places, lines, layers: sheet.layers.len() }
}
