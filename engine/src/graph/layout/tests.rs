//! Properties of every picture: no boxes overlap, no line runs through a box, nothing is left out, the same again.

use super::*;

/// Rounding.
const SLACK: f64 = 1e-6;

/// Numbers that look like chance and are the same every time (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(u64::try_from(end).unwrap())).unwrap()
    }
}

type Dag = (Vec<Size>, Vec<(usize, usize)>);

/// A graph of `boxes` boxes, each below up to `most` others that stand at most `reach` before it.
fn random(seed: u64, boxes: usize, most: usize, reach: usize) -> Dag {
    let mut chance = Chance(seed);
    let mut edges = Vec::new();
    for to in 1..boxes {
        for _ in 0..chance.index(most + 1) {
            edges.push((to - 1 - chance.index(to.min(reach)), to));
        }
    }
    // The order in which boxes are named says nothing about where they stand.
    let mut names: Vec<usize> = (0..boxes).collect();
    for n in (1..boxes).rev() {
        names.swap(n, chance.index(n + 1));
    }
    for (from, to) in &mut edges {
        (*from, *to) = (names[*from], names[*to]);
    }
    let size = |chance: &mut Chance| Size {
        width: 60.0 + f64::from(u32::try_from(chance.below(200)).unwrap()),
        height: 24.0 + f64::from(u32::try_from(chance.below(40)).unwrap()),
    };
    let sizes = (0..boxes).map(|_| size(&mut chance)).collect();
    (sizes, edges)
}

/// Checks all that must hold of a picture.
pub(crate) fn judge(sizes: &[Size], edges: &[(usize, usize)], layout: &Layout) {
    assert_eq!(layout.places.len(), sizes.len());
    assert_eq!(layout.lines.iter().map(|l| (l.from, l.to)).collect::<Vec<_>>(), edges);
    for (n, place) in layout.places.iter().enumerate() {
        assert_eq!(place.size, sizes[n]);
        assert!(place.x >= MARGIN - SLACK && place.y >= MARGIN - SLACK, "{place:?}");
        assert!(place.x + place.size.width <= layout.width - MARGIN + SLACK, "{place:?}");
        assert!(place.y + place.size.height <= layout.height - MARGIN + SLACK, "{place:?}");
        for other in &layout.places[..n] {
            let apart = place.x >= other.x + other.size.width + GAP_BOXES - SLACK
                || other.x >= place.x + place.size.width + GAP_BOXES - SLACK
                || place.y >= other.y + other.size.height + SLACK
                || other.y >= place.y + place.size.height + SLACK;
            assert!(apart, "{place:?} and {other:?} overlap");
        }
    }
    let hits = |p: Point| {
        layout.places.iter().position(|b| {
            p.x > b.x + SLACK
                && p.x < b.x + b.size.width - SLACK
                && p.y > b.y + SLACK
                && p.y < b.y + b.size.height - SLACK
        })
    };
    for line in &layout.lines {
        let (from, to) = (layout.places[line.from], layout.places[line.to]);
        let (first, last) = (line.points[0], line.points[line.points.len() - 1]);
        let middle = |p: Place| p.x + p.size.width / 2.0;
        assert!(
            (first.x - middle(from)).abs() < SLACK && (first.y - from.y - from.size.height).abs() < SLACK
        );
        assert!((last.x - middle(to)).abs() < SLACK && (last.y - to.y).abs() < SLACK, "{line:?}");
        assert_eq!(line.points.len() % 2, 0);
        for (n, pair) in line.points.windows(2).enumerate() {
            assert!(pair[1].y >= pair[0].y - SLACK, "a line goes up: {line:?}");
            if n % 2 == 0 {
                assert!((pair[0].x - pair[1].x).abs() < SLACK, "a stretch is not vertical: {line:?}");
                // A vertical stretch meets a box or not as a whole.
                for box_ in &layout.places {
                    let beside = pair[0].x <= box_.x + SLACK || pair[0].x >= box_.x + box_.size.width - SLACK;
                    let apart = pair[1].y <= box_.y + SLACK || pair[0].y >= box_.y + box_.size.height - SLACK;
                    assert!(beside || apart, "{line:?} runs through {box_:?}");
                }
            } else {
                for t in 0..=16 {
                    let p = on_curve(pair[0], pair[1], f64::from(t) / 16.0);
                    assert_eq!(hits(p), None, "{line:?} runs through a box at {p:?}");
                }
            }
        }
    }
}

fn on_curve(from: Point, to: Point, t: f64) -> Point {
    let (a, b) = between(from, to);
    let mix = |p: f64, q: f64, r: f64, s: f64| {
        let u = 1.0 - t;
        u * u * u * p + 3.0 * u * u * t * q + 3.0 * u * t * t * r + t * t * t * s
    };
    Point { x: mix(from.x, a.x, b.x, to.x), y: mix(from.y, a.y, b.y, to.y) }
}

#[test]
fn no_picture_has_overlaps_or_lines_through_boxes() {
    for seed in 0..300 {
        let mut chance = Chance(seed ^ 0xabcd);
        let boxes = 1 + chance.index(90);
        let (sizes, edges) = random(seed, boxes, 1 + chance.index(4), 1 + chance.index(boxes));
        let layout = lay_out(&sizes, &edges).unwrap();
        judge(&sizes, &edges, &layout);
        assert_eq!(layout, lay_out(&sizes, &edges).unwrap(), "seed {seed}: the same again");
        // What follows from others can be left out without another order.
        let fewer = essential(boxes, &edges).unwrap();
        judge(&sizes, &fewer, &lay_out(&sizes, &fewer).unwrap());
    }
}

#[test]
fn large_pictures_hold_as_well() {
    for (seed, most, reach) in [(1, 3, 40), (2, 2, 1000), (3, 1, 5)] {
        let (sizes, edges) = random(seed, 600, most, reach);
        judge(&sizes, &edges, &lay_out(&sizes, &edges).unwrap());
    }
}

#[test]
fn extremes_are_pictures_too() {
    let sizes = |n| vec![Size { width: 100.0, height: 30.0 }; n];
    assert_eq!(lay_out(&[], &[]).unwrap().lines, []);
    let alone = lay_out(&sizes(1), &[]).unwrap();
    assert_eq!((alone.width, alone.height), (148.0, 78.0));
    // A fan of many and its end: a block, no ribbon, and one line each way.
    let n = 400;
    let mut edges: Vec<_> = (1..=n).map(|leaf| (0, leaf)).collect();
    edges.extend((1..=n).map(|leaf| (leaf, n + 1)));
    let fan = lay_out(&sizes(n + 2), &edges).unwrap();
    judge(&sizes(n + 2), &edges, &fan);
    assert!(fan.width < 4_500.0 && fan.height < 4_500.0, "{} x {}", fan.width, fan.height);
    // A thousand in a row, and a box that the first leads to as well.
    let mut edges: Vec<_> = (1..1000).map(|to| (to - 1, to)).collect();
    edges.push((0, 999));
    judge(&sizes(1000), &edges, &lay_out(&sizes(1000), &edges).unwrap());
}

#[test]
fn what_is_no_such_graph_is_refused() {
    let sizes = vec![Size { width: 10.0, height: 10.0 }; 3];
    for edges in [&[(0, 0)][..], &[(0, 1), (1, 2), (2, 0)], &[(0, 3)]] {
        assert_eq!(lay_out(&sizes, edges), Err(LayoutError::NotAcyclic));
        assert_eq!(essential(3, edges), Err(LayoutError::NotAcyclic));
    }
    // Two thousand in a row, and as many beside them whose lines pass all of those.
    let (boxes, row) = (4_000, 2_000);
    let mut edges: Vec<_> = (1..row).map(|to| (to - 1, to)).collect();
    for beside in row..boxes {
        edges.extend([(0, beside), (beside, row - 1), (beside, 1 + beside % (row - 2))]);
    }
    let sizes = vec![Size { width: 10.0, height: 10.0 }; boxes];
    assert_eq!(lay_out(&sizes, &edges), Err(LayoutError::TooLarge));
}

#[test]
fn what_follows_is_left_out() {
    let edges = [(0, 1), (1, 2), (0, 2), (0, 3), (3, 2), (2, 4), (0, 4), (0, 1)];
    assert_eq!(essential(5, &edges).unwrap(), [(0, 1), (0, 3), (1, 2), (2, 4), (3, 2)]);
}

#[test]
fn lines_cross_only_where_they_must() {
    // Two boxes above, two below, named so that the given order crosses.
    let sizes = vec![Size { width: 100.0, height: 30.0 }; 4];
    let layout = lay_out(&sizes, &[(0, 3), (1, 2)]).unwrap();
    let x = |n: usize| layout.places[n].x;
    assert_eq!(x(0) < x(1), x(3) < x(2), "{layout:?}");
    // A row of boxes is one vertical line.
    let row = lay_out(&sizes, &[(0, 1), (1, 2), (2, 3)]).unwrap();
    assert!(row.places.windows(2).all(|p| (p[0].x - p[1].x).abs() < SLACK), "{row:?}");
}
