//! Graphs in every form that `runs graph` and `workflows graph` know.

use dssflow_engine::Graph;
use dssflow_engine::graph::{render, svg};

use crate::args::GraphFormat;
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::ui::Ui;

/// Draws a graph. `heading` stands above it where it is a picture.
///
/// # Errors
/// When it is too large for a picture.
pub(crate) fn draw(
    ui: &Ui,
    format: GraphFormat,
    graph: &Graph,
    statuses: Option<&render::Statuses>,
    heading: &str,
) -> CommandResult {
    match format {
        GraphFormat::Text => ui.out(render::text(graph, statuses).trim_end()),
        GraphFormat::Dot => ui.out(render::dot(graph, statuses).trim_end()),
        GraphFormat::Mermaid => ui.out(render::mermaid(graph, statuses).trim_end()),
        GraphFormat::Svg => {
            let picture = svg::svg(graph, statuses, heading).map_err(|why| {
                CommandError::new(Code::RunRefused, "the graph is too large for a picture")
                    .why(why)
                    .hint("-o dot is for programs that lay out graphs of any size, -o text for reading")
            })?;
            ui.out(picture.trim_end());
        }
        GraphFormat::Json => ui.json(graph, true),
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use dssflow_engine::graph::layout::{self, Place, Size};

    use super::*;
    use crate::catalog;

    /// Rounding.
    const SLACK: f64 = 1e-6;

    /// Whether a vertical line at `x` from `top` to `bottom` runs through a box.
    fn runs_through(place: &Place, x: f64, top: f64, bottom: f64) -> bool {
        let inside = x > place.x && x < place.x + place.size.width;
        inside && bottom > place.y + SLACK && top < place.y + place.size.height - SLACK
    }

    /// The picture that docs/pictures.md shows is the one that is drawn.
    fn is_in_the_docs(drawn: &str) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/pictures/bootstrap.svg");
        if std::env::var_os("DSSFLOW_WRITE_DOCS").is_some() {
            std::fs::write(path, drawn).unwrap();
        }
        assert!(
            std::fs::read_to_string(path).unwrap_or_default() == drawn,
            "docs/pictures/bootstrap.svg is of another version; write it anew: DSSFLOW_WRITE_DOCS=1 cargo test --workspace \
             --bins bootstrap_in_both"
        );
    }

    #[test]
    fn the_bootstrap_in_both_modes_is_a_picture_without_overlaps() {
        for mode in ["dss-plugin", "sdk"] {
            let site = catalog::example_site(&[format!("cluster.mode={mode}")]).unwrap();
            let graph = catalog::build("bootstrap", &site).unwrap().graph;
            let names: Vec<_> = graph.steps().iter().map(|s| s.name.clone()).collect();
            let edges: Vec<(usize, usize)> = (0..)
                .zip(&names)
                .flat_map(|(to, name)| {
                    let ix = graph.index_of(name).unwrap();
                    graph.dependencies(ix).iter().map(move |&from| (usize::try_from(from).unwrap(), to))
                })
                .collect();
            let sizes: Vec<Size> = (30_u32..)
                .zip(&names)
                .map(|(n, name)| Size {
                    width: f64::from(u32::try_from(name.as_str().len()).unwrap()).mul_add(7.0, 40.0),
                    height: f64::from(n % 40 + 20),
                })
                .collect();
            let laid = layout::lay_out(&sizes, &edges).unwrap();
            assert_eq!(laid.lines.len(), edges.len());
            for (n, a) in laid.places.iter().enumerate() {
                for b in &laid.places[..n] {
                    let apart = a.x >= b.x + b.size.width - SLACK
                        || b.x >= a.x + a.size.width - SLACK
                        || a.y >= b.y + b.size.height - SLACK
                        || b.y >= a.y + a.size.height - SLACK;
                    assert!(apart, "{mode}: {a:?} and {b:?}");
                }
            }
            for line in &laid.lines {
                for (n, pair) in line.points.windows(2).enumerate() {
                    let (a, b) = (pair[0], pair[1]);
                    for place in &laid.places {
                        if n % 2 == 0 {
                            assert!(!runs_through(place, a.x, a.y, b.y), "{mode}: {line:?} and {place:?}");
                            continue;
                        }
                        // Between layers there is no box at all, so whatever the curve does there meets none.
                        let apart = place.y >= b.y - SLACK || place.y + place.size.height <= a.y + SLACK;
                        assert!(apart, "{mode}: {line:?} and {place:?}");
                    }
                }
            }
            let drawn = svg::svg(&graph, None, "bootstrap").unwrap();
            assert_eq!(drawn.matches("<g class=\"plain\"").count(), graph.len());
            if mode == "dss-plugin" {
                is_in_the_docs(&drawn);
            }
        }
    }
}
