//! Tables for a terminal and for a page: the same cells.

use std::fmt::Write as _;

/// Rows of cells under a heading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty one.
    #[must_use]
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self { heading: heading.iter().map(|&cell| cell.to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row; cells that are missing stay empty.
    pub(crate) fn row(&mut self, mut cells: Vec<String>) {
        cells.resize(self.heading.len(), String::new());
        self.rows.push(cells);
    }

    /// For a terminal: the first column to the left, the others to the right.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let lines = || [&self.heading].into_iter().chain(&self.rows);
        let width = |column: usize| lines().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..self.heading.len()).map(width).collect();
        let mut text = String::new();
        for row in lines() {
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let _ = match column {
                    0 => write!(text, "{cell:<width$}"),
                    _ => write!(text, "  {cell:>width$}"),
                };
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }

    /// For a page.
    #[must_use]
    pub(crate) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = line(&self.heading);
        let rule: Vec<String> = (0..self.heading.len())
            .map(|column| if column == 0 { "---" } else { "--:" }.to_owned())
            .collect();
        text.push_str(&line(&rule));
        for row in &self.rows {
            text.push_str(&line(row));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["what", "µs", "mark"]);
        table.row(vec!["heartbeat".into(), "5.1".into()]);
        table.row(vec!["10 KB".into(), "12.5".into(), "ok".into()]);
        table
    }

    #[test]
    fn columns_line_up_on_a_terminal() {
        assert_eq!(table().text(), "what         µs  mark\nheartbeat   5.1\n10 KB      12.5    ok\n");
    }

    #[test]
    fn a_page_has_the_same_cells() {
        let expected =
            "| what | µs | mark |\n| --- | --: | --: |\n| heartbeat | 5.1 |  |\n| 10 KB | 12.5 | ok |\n";
        assert_eq!(table().markdown(), expected);
    }
}
