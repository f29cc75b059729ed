//! The report's picture: throughput of encoders by batch, time to the first token of generators by prompt.

use plotters::prelude::*;
use plotters::style::{FontDesc, FontFamily, FontStyle};

use super::report::Row;
use super::worker::Route;

const PANEL: (u32, u32) = (900, 420);
const COLOURS: [RGBColor; 8] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(214, 39, 40),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(227, 119, 194),
    RGBColor(23, 190, 207),
];

struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

struct Panel {
    title: &'static str,
    across: &'static str,
    up: &'static str,
    lines: Vec<Line>,
}

/// The picture as SVG; panels without points are left out.
pub(super) fn draw(rows: &[Row]) -> anyhow::Result<String> {
    let panels: Vec<Panel> = [
        Panel {
            title: "Embeddings through a plugin",
            across: "texts of a call",
            up: "texts a second",
            lines: lines(rows, "texts/s"),
        },
        Panel {
            title: "Time to the first token through a plugin",
            across: "tokens of the system text",
            up: "ms",
            lines: lines(rows, "ms"),
        },
    ]
    .into_iter()
    .filter(|panel| !panel.lines.is_empty())
    .collect();
    let mut picture = String::new();
    let height = PANEL.1 * u32::try_from(panels.len().max(1)).unwrap_or(1);
    {
        let area = SVGBackend::with_string(&mut picture, (PANEL.0, height)).into_drawing_area();
        area.fill(&WHITE)?;
        for (area, panel) in area.split_evenly((panels.len().max(1), 1)).iter().zip(&panels) {
            draw_panel(area, panel)?;
        }
        area.present()?;
    }
    Ok(picture)
}

/// Rows of this unit that depend on a size, by what they are of.
fn lines(rows: &[Row], unit: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for row in rows
        .iter()
        .filter(|row| row.unit == unit && row.route == Some(Route::Plugin))
    {
        let Some(size) = row.size.filter(|_| row.value > 0.0) else {
            continue;
        };
        let threads = if row.threads == 1 { "thread" } else { "threads" };
        let name = format!("{}: {}, {} {threads}", row.model, row.what, row.threads);
        let point = (size as f64, row.value);
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push(point),
            None => lines.push(Line {
                name,
                points: vec![point],
            }),
        }
    }
    lines.retain(|line| line.points.len() > 1);
    lines
}

fn draw_panel<D: DrawingBackend>(area: &DrawingArea<D, plotters::coord::Shift>, panel: &Panel) -> anyhow::Result<()>
where
    D::ErrorType: 'static,
{
    let points = || panel.lines.iter().flat_map(|line| line.points.iter());
    let range = |of: fn(&(f64, f64)) -> f64| {
        let (least, most) = points().map(of).fold((f64::MAX, f64::MIN), |(least, most), value| {
            (least.min(value), most.max(value))
        });
        (least * 0.9)..(most * 1.2)
    };
    let font = |size: f64| FontDesc::new(FontFamily::SansSerif, size, FontStyle::Normal);
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, font(18.0))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(range(|point| point.0).log_scale(), range(|point| point.1).log_scale())?;
    chart
        .configure_mesh()
        .x_desc(panel.across)
        .y_desc(panel.up)
        .label_style(font(13.0))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (line, colour) in panel.lines.iter().zip(COLOURS.into_iter().cycle()) {
        let style = colour.stroke_width(2);
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), style).point_size(3))?
            .label(line.name.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(font(12.0))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .draw()?;
    Ok(())
}
