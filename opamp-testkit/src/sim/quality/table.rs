//! The table as Markdown, and its place in a page.

use std::fmt;

use opamp_fleet::rollout::preview::grouped;
use opamp_fleet::rollout::stats::Ppm;

use super::{Cell, QualityOptions};

/// What stands before the table in a page.
pub const BEGIN: &str = "<!-- quality table: written by `cargo xtask sim --quality` -->";
/// What stands behind it.
pub const END: &str = "<!-- end of quality table -->";

/// All cells, fleet by fleet, rate by rate. Its text is Markdown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// What was asked for.
    pub options: QualityOptions,
    /// The cells.
    pub cells: Vec<Cell>,
}

impl Table {
    /// Rollouts that came to no end: a bug.
    #[must_use]
    pub fn endless(&self) -> u32 {
        self.cells.iter().map(|cell| cell.endless).sum()
    }

    /// Cells that miss what is asked of fleets of 1,000 agents and more, a line each: noise stops next to no rollout, a fault of a
    /// fifth is stopped before a quarter of the fleet has it, and a total one after three agents.
    #[must_use]
    pub fn missed(&self) -> Vec<String> {
        let large = self.cells.iter().filter(|cell| cell.fleet >= LARGE && cell.runs > 0);
        let missed = large.filter_map(|cell| {
            let what = miss(cell)?;
            Some(format!("{} agents, {} faulty: {what} is the target", grouped(cell.fleet), cell.rate))
        });
        missed.collect()
    }
}

/// Fleets from this size on have targets.
const LARGE: u32 = 1_000;
/// What happens in any fleet, and faults that have to be stopped.
const NOISE: Ppm = Ppm(5_000);
const FIFTH: Ppm = Ppm::percent(20);

fn miss(cell: &Cell) -> Option<String> {
    let (runs, early) = (u64::from(cell.runs), u64::from(cell.early));
    let said = |what: &str, count: u32, target: &str| format!("{what} {}, {target}", part(count, cell.runs));
    match cell.rate {
        NOISE if 100 * u64::from(cell.stopped) > runs => Some(said("stopped", cell.stopped, "at most 1 %")),
        FIFTH if 100 * early < 99 * runs => {
            Some(said("stopped before a quarter has it", cell.early, "at least 99 %"))
        }
        Ppm::ALL if cell.stopped < cell.runs => Some(said("stopped", cell.stopped, "all of them")),
        Ppm::ALL => {
            let most = cell.touched_at(100).filter(|most| *most > 3)?;
            Some(format!("touched {}, at most 3", grouped(most)))
        }
        _ => None,
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} rollouts a line, seeds from {}.\n", grouped(self.options.runs), self.options.first)?;
        writeln!(
            f,
            "| fleet | faulty | stopped | of these held | stopped before a quarter | touched: median | 99 % | most | plain rule stops | before a quarter |"
        )?;
        writeln!(f, "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")?;
        for cell in &self.cells {
            let touched = |percent| cell.touched_at(percent).map_or_else(|| "-".to_owned(), grouped);
            writeln!(
                f,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                grouped(cell.fleet),
                cell.rate,
                part(cell.stopped, cell.runs),
                part(cell.held, cell.runs),
                part(cell.early, cell.runs),
                touched(50),
                touched(99),
                touched(100),
                part(cell.plain_stopped, cell.runs),
                part(cell.plain_early, cell.runs),
            )?;
        }
        Ok(())
    }
}

/// The page with the table between its two marks; none if the marks are not there.
#[must_use]
pub fn replaced(page: &str, table: &Table) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

/// A part of a whole in percent with two decimals, rounded to the nearest; a dash of nothing.
fn part(part: u32, whole: u32) -> String {
    let (part, whole) = (u64::from(part), u64::from(whole));
    if whole == 0 {
        return "-".to_owned();
    }
    let hundredths = (20_000 * part + whole) / (2 * whole);
    format!("{}.{:02} %", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let cell = Cell {
            fleet: 1_000,
            rate: Ppm::percent(20),
            runs: 3,
            stopped: 2,
            held: 1,
            early: 2,
            touched: vec![3, 40],
            plain_stopped: 3,
            plain_early: 0,
            endless: 0,
        };
        Table { options: QualityOptions { runs: 3, ..QualityOptions::default() }, cells: vec![cell] }
    }

    #[test]
    fn a_line_tells_ratios_and_percentiles() {
        let text = table().to_string();
        let line = "| 1,000 | 20 % | 66.67 % | 33.33 % | 66.67 % | 3 | 3 | 40 | 100.00 % | 0.00 % |";
        assert_eq!(text.lines().last(), Some(line));
    }

    #[test]
    fn the_table_takes_its_place_in_a_page_and_nothing_else() {
        let page = format!("above\n{BEGIN}\nold\n{END}\nbelow\n");
        let with = replaced(&page, &table()).unwrap();
        assert!(with.starts_with("above\n") && with.ends_with("\nbelow\n") && !with.contains("old"));
        assert_eq!(replaced(&with, &table()), Some(with));
        assert_eq!(replaced("no marks", &table()), None);
    }

    #[test]
    fn a_cell_that_misses_its_target_is_named_and_small_fleets_have_none() {
        let cell = |fleet, rate, stopped, early, touched: &[u32]| Cell {
            fleet,
            rate,
            runs: 100,
            stopped,
            early,
            touched: touched.to_vec(),
            ..Cell::default()
        };
        let missed = |cells: &[Cell]| Table { cells: cells.to_vec(), ..table() }.missed();
        let (noise, fifth) = (Ppm(5_000), Ppm::percent(20));
        let good = [
            cell(1_000, noise, 1, 1, &[40]),
            cell(1_000, fifth, 99, 99, &[40; 99]),
            cell(10_000, Ppm::ALL, 100, 100, &[3; 100]),
            cell(100, fifth, 3, 3, &[40; 3]),
            cell(1_000, Ppm::percent(2), 50, 50, &[40; 50]),
        ];
        assert_eq!(missed(&good), Vec::<String>::new());
        let bad = [
            cell(1_000, noise, 2, 0, &[40; 2]),
            cell(1_000, fifth, 100, 98, &[40; 100]),
            cell(1_000, Ppm::ALL, 100, 100, &[4; 100]),
            cell(1_000, Ppm::ALL, 99, 99, &[3; 99]),
        ];
        let said = missed(&bad);
        assert_eq!(said.len(), 4, "{said:?}");
        assert_eq!(said[0], "1,000 agents, 0.5 % faulty: stopped 2.00 %, at most 1 % is the target");
    }
}
