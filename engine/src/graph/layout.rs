//! Where the boxes and lines of a drawn graph go: sizes and edges in, positions out.
//!
//! The way of Sugiyama, from the top down: boxes get layers, lines that pass a layer get a place in it (a bend), the
//! order within layers is chosen for few crossings, then everything is moved to where its neighbours are. Two things are
//! our own. Lines that leave one box share their bends (a trunk), and so do lines into one box from boxes that lead
//! nowhere else: a fan of five hundred is then one line that branches. And a layer takes only so many boxes, so that a fan
//! is a block and not a ribbon.
//!
//! By construction boxes do not overlap, and lines do not run through boxes: within a layer a line is vertical, at a
//! place of its own; it moves sideways only between layers, where no box is. Pure and deterministic. Nothing here knows
//! what a box means or draws it.

mod layers;
mod order;
mod place;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

/// Blank around everything.
pub const MARGIN: f64 = 24.0;
/// The most places that lines may need between boxes; beyond, a picture would show nothing.
pub const MAX_BENDS: usize = 500_000;

/// Between two boxes, a box and a line, two lines.
const GAP_BOXES: f64 = 22.0;
const GAP_BOX_LINE: f64 = 16.0;
const GAP_LINES: f64 = 10.0;

/// How large a box is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size {
    /// From left to right.
    pub width: f64,
    /// From top to bottom.
    pub height: f64,
}

/// A point; y grows downwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// From the left.
    pub x: f64,
    /// From the top.
    pub y: f64,
}

/// Where a box stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Its left edge.
    pub x: f64,
    /// Its upper edge.
    pub y: f64,
    /// Its size, as given.
    pub size: Size,
}

/// One line. Its points come in pairs: each pair is the ends of a vertical stretch, at the box it leaves, through the
/// layers it passes, at the box it enters. From one pair to the next it moves sideways, as [`between`] says.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The box it leaves, by its lower edge.
    pub from: usize,
    /// The box it enters, by its upper edge.
    pub to: usize,
    /// Its points.
    pub points: Vec<Point>,
}

/// Where everything goes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Layout {
    /// The width of the picture.
    pub width: f64,
    /// Its height.
    pub height: f64,
    /// The boxes, as given.
    pub places: Vec<Place>,
    /// The lines, as given.
    pub lines: Vec<Line>,
    /// In how many layers the boxes stand.
    pub layers: usize,
}

/// Why a graph cannot be laid out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// An edge names a box that is not there, or boxes lead back to themselves.
    #[error("the edges are not those of a directed acyclic graph")]
    NotAcyclic,
    /// Too many lines pass too many layers.
    #[error("its lines would need more than {MAX_BENDS} bends")]
    TooLarge,
}

/// The control points of the curve from the end of one vertical stretch to the beginning of the next: vertical at both
/// ends, and never above the first or below the second.
pub fn between(from: Point, to: Point) -> (Point, Point) {
    let middle = f64::midpoint(from.y, to.y);
    (Point { x: from.x, y: middle }, Point { x: to.x, y: middle })
}

/// The edges that do not follow from others: `a` to `c` is left out where `a` leads to `b` and `b` to `c`.
///
/// # Errors
/// When the edges are not those of a directed acyclic graph.
pub fn essential(boxes: usize, edges: &[(usize, usize)]) -> Result<Vec<(usize, usize)>, LayoutError> {
    let net = Net::new(boxes, edges)?;
    let mut rank = vec![0; boxes];
    for (position, &at) in net.order.iter().enumerate() {
        rank[at] = position;
    }
    let words = boxes.div_ceil(64);
    let mut reached = vec![0_u64; boxes * words];
    let mut kept = Vec::new();
    let mut row = vec![0_u64; words];
    for &from in net.order.iter().rev() {
        row.fill(0);
        let mut below = net.below[from].clone();
        below.sort_unstable_by_key(|&to| rank[to]);
        below.dedup();
        for to in below {
            if row[to / 64] & (1 << (to % 64)) != 0 {
                continue;
            }
            kept.push((from, to));
            row[to / 64] |= 1 << (to % 64);
            for (word, other) in row.iter_mut().zip(&reached[to * words..(to + 1) * words]) {
                *word |= other;
            }
        }
        reached[from * words..(from + 1) * words].copy_from_slice(&row);
    }
    kept.sort_unstable();
    Ok(kept)
}

/// Lays a graph out: boxes of these sizes, edges from the first to the second.
///
/// # Errors
/// When the edges are not those of a directed acyclic graph, or there are too many to show.
pub fn lay_out(sizes: &[Size], edges: &[(usize, usize)]) -> Result<Layout, LayoutError> {
    let net = Net::new(sizes.len(), edges)?;
    let layer_of = layers::assign(&net);
    let mut sheet = Sheet::new(sizes, &net, &layer_of)?;
    order::reduce_crossings(&mut sheet);
    let centres = place::sideways(&sheet);
    Ok(place::finish(&sheet, sizes, edges, &net, &centres))
}

/// A graph as neighbours, checked.
struct Net {
    above: Vec<Vec<usize>>,
    below: Vec<Vec<usize>>,
    /// Topological.
    order: Vec<usize>,
}

impl Net {
    fn new(boxes: usize, edges: &[(usize, usize)]) -> Result<Self, LayoutError> {
        let (mut above, mut below) = (vec![Vec::new(); boxes], vec![Vec::new(); boxes]);
        let mut unique = edges.to_vec();
        unique.sort_unstable();
        unique.dedup();
        for (from, to) in unique {
            if from >= boxes || to >= boxes {
                return Err(LayoutError::NotAcyclic);
            }
            below[from].push(to);
            above[to].push(from);
        }
        let mut missing: Vec<usize> = above.iter().map(Vec::len).collect();
        let mut order: Vec<usize> = (0..boxes).filter(|&at| missing[at] == 0).collect();
        let mut next = 0;
        while let Some(&at) = order.get(next) {
            next += 1;
            for &to in &below[at] {
                missing[to] -= 1;
                if missing[to] == 0 {
                    order.push(to);
                }
            }
        }
        if order.len() < boxes {
            return Err(LayoutError::NotAcyclic);
        }
        Ok(Self { above, below, order })
    }

    /// Whether the line shares the trunk of the box it enters; else it shares that of the box it leaves. Lines of one
    /// trunk all begin, or all end, at one box, so a branch never says what is not so.
    fn joins(&self, from: usize) -> bool {
        self.below[from].len() == 1
    }
}

/// Boxes and bends in their layers, and the stretches of line from one layer to the next.
struct Sheet {
    /// Width of each item; boxes first, then bends.
    widths: Vec<f64>,
    boxes: usize,
    /// Layer of each item.
    layer_of: Vec<usize>,
    /// Items of each layer, from left to right.
    layers: Vec<Vec<usize>>,
    /// What each item is connected to in the layer above and below.
    up: Vec<Vec<usize>>,
    down: Vec<Vec<usize>>,
    /// The bends of the trunk that leaves a box, one a layer, from the layer below it.
    leaving: BTreeMap<usize, Vec<usize>>,
    /// The bends of the trunk that enters a box, down to the layer above it.
    entering: BTreeMap<usize, Vec<usize>>,
}

impl Sheet {
    fn new(sizes: &[Size], net: &Net, layer_of: &[usize]) -> Result<Self, LayoutError> {
        let boxes = sizes.len();
        let mut sheet = Self {
            widths: sizes.iter().map(|s| s.width).collect(),
            boxes,
            layer_of: layer_of.to_vec(),
            layers: vec![Vec::new(); layer_of.iter().max().map_or(0, |last| last + 1)],
            up: vec![Vec::new(); boxes],
            down: vec![Vec::new(); boxes],
            leaving: BTreeMap::new(),
            entering: BTreeMap::new(),
        };
        let mut bends = 0;
        for &at in &net.order {
            let to = net.below[at].iter().map(|&b| layer_of[b]).max().filter(|_| !net.joins(at));
            let from = net.above[at].iter().filter(|&&a| net.joins(a)).map(|&a| layer_of[a]).min();
            bends +=
                to.map_or(0, |to| to - layer_of[at] - 1) + from.map_or(0, |from| layer_of[at] - from - 1);
            if bends > MAX_BENDS {
                return Err(LayoutError::TooLarge);
            }
            if let Some(to) = to {
                let trunk = sheet.trunk(layer_of[at] + 1, to);
                sheet.leaving.insert(at, trunk);
            }
            if let Some(from) = from {
                let trunk = sheet.trunk(from + 1, layer_of[at]);
                sheet.entering.insert(at, trunk);
            }
        }
        // Boxes and bends come into their layers as they are met from the top: a first order that follows the lines.
        let mut met = vec![false; sheet.widths.len()];
        for &at in &net.order {
            sheet.connect(net, at);
        }
        for root in net.order.iter().copied() {
            sheet.descend(root, &mut met);
        }
        for layer in 0..sheet.layers.len() {
            debug_assert!(!sheet.layers[layer].is_empty(), "layers without boxes were taken out");
        }
        Ok(sheet)
    }

    /// New bends in the layers from the first to before the last, connected with each other.
    fn trunk(&mut self, first: usize, end: usize) -> Vec<usize> {
        let mut made: Vec<usize> = Vec::with_capacity(end.saturating_sub(first));
        for layer in first..end {
            let bend = self.widths.len();
            self.widths.push(0.0);
            self.layer_of.push(layer);
            self.up.push(Vec::new());
            self.down.push(Vec::new());
            if let Some(&before) = made.last() {
                self.down[before].push(bend);
                self.up[bend].push(before);
            }
            made.push(bend);
        }
        made
    }

    /// Connects the lines that leave a box.
    fn connect(&mut self, net: &Net, from: usize) {
        for &to in &net.below[from] {
            let way = self.way(net, from, to);
            for pair in way.windows(2) {
                let (a, b) = (pair[0], pair[1]);
                if !self.down[a].contains(&b) {
                    self.down[a].push(b);
                    self.up[b].push(a);
                }
            }
        }
    }

    /// The items that a line goes by, its boxes included.
    fn way(&self, net: &Net, from: usize, to: usize) -> Vec<usize> {
        let (first, last) = (self.layer_of[from], self.layer_of[to]);
        let passed = last - first - 1;
        let mut way = vec![from];
        if net.joins(from) {
            let trunk = &self.entering[&to];
            way.extend_from_slice(&trunk[trunk.len() - passed..]);
        } else {
            way.extend_from_slice(&self.leaving[&from][..passed]);
        }
        way.push(to);
        way
    }

    fn descend(&mut self, root: usize, met: &mut [bool]) {
        let mut todo = vec![root];
        while let Some(item) = todo.pop() {
            if std::mem::replace(&mut met[item], true) {
                continue;
            }
            self.layers[self.layer_of[item]].push(item);
            todo.extend(self.down[item].iter().rev().filter(|&&below| !met[below]));
        }
    }

    fn is_bend(&self, item: usize) -> bool {
        item >= self.boxes
    }

    /// Boxes one below the other that are connected with nobody else there.
    fn rows(&self) -> Vec<Vec<usize>> {
        let next = |item: usize| match self.down[item].as_slice() {
            &[below] if !self.is_bend(below) && self.up[below].len() == 1 => Some(below),
            _ => None,
        };
        let begins = |&item: &usize| match self.up[item].as_slice() {
            &[above] => self.is_bend(above) || next(above).is_none(),
            _ => true,
        };
        let row = |item| std::iter::successors(Some(item), |&item| next(item)).collect::<Vec<_>>();
        (0..self.boxes).filter(begins).map(row).filter(|row| row.len() > 1).collect()
    }

    /// The bend that a bend goes on to, in the layer that `neighbours` looks at.
    fn inner(&self, neighbours: &[Vec<usize>], item: usize) -> Option<usize> {
        let mut bends = neighbours[item].iter().copied().filter(|&other| self.is_bend(other));
        bends.next().filter(|_| self.is_bend(item))
    }

    /// The least distance of the centres of two neighbours.
    fn distance(&self, left: usize, right: usize) -> f64 {
        let gap = match (self.is_bend(left), self.is_bend(right)) {
            (false, false) => GAP_BOXES,
            (true, true) => GAP_LINES,
            _ => GAP_BOX_LINE,
        };
        f64::midpoint(self.widths[left], self.widths[right]) + gap
    }
}
