//! What becomes of a member whose deadline has passed (R26).

use super::act::{Case, Detail};
use super::cell::Column;
use super::{Around, Step, table};
use crate::rollout::members::Row;

/// What becomes of a member whose deadline has passed. It always gets another deadline, or none.
pub(crate) fn on_deadline(row: &Row, around: &Around<'_>) -> Step {
    let case =
        Case { row, noted: row.changed(), around, column: Column::Deadline, detail: Detail::default() };
    case.perform(table::cell(row.state, Column::Deadline))
}
