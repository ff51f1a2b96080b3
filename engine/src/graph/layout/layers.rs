//! Which layer each box stands in.
//!
//! First as early as it can, in layers that take only so many; then boxes move to where their lines are shorter. The
//! second takes a tool that is needed at the end from the top of the picture to where it is needed.

use super::Net;

/// How often all boxes are looked at again.
const ROUNDS: usize = 8;

/// The layer of each box, from 0, none empty.
pub(super) fn assign(net: &Net) -> Vec<usize> {
    let room = room(net.order.len());
    let mut layers = schedule(net, room);
    shorten(net, room, &mut layers);
    close_up(&mut layers);
    layers
}

/// How many boxes a layer takes: somewhat less than as many as there are layers in a square.
fn room(boxes: usize) -> usize {
    boxes.isqrt().max(6)
}

/// As early as it can be, those with the longest way still to go first.
fn schedule(net: &Net, room: usize) -> Vec<usize> {
    let mut height = vec![0_usize; net.order.len()];
    for &at in net.order.iter().rev() {
        height[at] = net.below[at].iter().map(|&b| height[b] + 1).max().unwrap_or(0);
    }
    let mut missing: Vec<usize> = net.above.iter().map(Vec::len).collect();
    let mut layers = vec![0; net.order.len()];
    let mut ready: Vec<usize> = net.order.iter().copied().filter(|&at| missing[at] == 0).collect();
    let mut layer = 0;
    while !ready.is_empty() {
        // Stable, so that boxes of the same height keep the order in which they became ready.
        ready.sort_by_key(|&at| std::cmp::Reverse(height[at]));
        let rest = ready.split_off(ready.len().min(room));
        let taken = std::mem::replace(&mut ready, rest);
        for &at in &taken {
            layers[at] = layer;
            for &to in &net.below[at] {
                missing[to] -= 1;
                if missing[to] == 0 {
                    ready.push(to);
                }
            }
        }
        layer += 1;
    }
    layers
}

fn shorten(net: &Net, room: usize, layers: &mut [usize]) {
    let last = layers.iter().max().map_or(0, |last| last + 1);
    let mut count = vec![0_usize; last];
    for &layer in layers.iter() {
        count[layer] += 1;
    }
    for round in 0..ROUNDS {
        let mut moved = false;
        let order: Box<dyn Iterator<Item = &usize>> =
            if round % 2 == 0 { Box::new(net.order.iter().rev()) } else { Box::new(net.order.iter()) };
        for &at in order {
            let first = net.above[at].iter().map(|&a| layers[a] + 1).max().unwrap_or(0);
            let Some(end) = net.below[at].iter().map(|&b| layers[b]).min() else { continue };
            let was = layers[at];
            let cost = cost(net, layers, at);
            let mut best = (cost, was);
            for to in [end - 1, first, was + 1, was.wrapping_sub(1)] {
                if to == was || to < first || to >= end || count[to] >= room {
                    continue;
                }
                layers[at] = to;
                // Of two that are as good, the one with more room.
                let new = self::cost(net, layers, at);
                if new < best.0 || (new == best.0 && best.1 != was && count[to] < count[best.1]) {
                    best = (new, to);
                }
            }
            layers[at] = best.1;
            if best.1 != was {
                count[was] -= 1;
                count[best.1] += 1;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
}

/// How many bends the trunks need that depend on where a box stands.
fn cost(net: &Net, layers: &[usize], at: usize) -> usize {
    let mut sum = leaving(net, layers, at) + entering(net, layers, at);
    for &a in &net.above[at] {
        // A line that joins is counted with the box it enters.
        sum += leaving(net, layers, a);
    }
    if net.joins(at) {
        sum += net.below[at].iter().map(|&b| entering(net, layers, b)).sum::<usize>();
    }
    sum
}

fn leaving(net: &Net, layers: &[usize], at: usize) -> usize {
    if net.joins(at) {
        return 0;
    }
    net.below[at].iter().map(|&b| layers[b]).max().map_or(0, |last| last.saturating_sub(layers[at]))
}

fn entering(net: &Net, layers: &[usize], at: usize) -> usize {
    net.above[at]
        .iter()
        .filter(|&&a| net.joins(a))
        .map(|&a| layers[a])
        .min()
        .map_or(0, |first| layers[at].saturating_sub(first))
}

/// Takes empty layers out.
fn close_up(layers: &mut [usize]) {
    let mut used = vec![false; layers.iter().max().map_or(0, |last| last + 1)];
    for &layer in layers.iter() {
        used[layer] = true;
    }
    let mut new = 0;
    let numbers: Vec<usize> = used
        .iter()
        .map(|&used| {
            new += usize::from(used);
            new.saturating_sub(1)
        })
        .collect();
    for layer in layers {
        *layer = numbers[*layer];
    }
}
