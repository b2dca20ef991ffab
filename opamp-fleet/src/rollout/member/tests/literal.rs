//! The table as it is meant, letter by letter.
//!
//! `·` flags, `=` nothing, `!` impossible, `A` applied, `V?` verified if the evidence is complete, `B` absent, `C` not
//! applicable, `D` delivered, `E` excluded, `F` failed or backing off, `F!` failed, `G` applying, `J` rejected, `K` rollback
//! queued, `L` leaver, `N` already current, `Q` queued, `R` removed, `S` gone back by itself, `T` timed out or backing off,
//! `U` unverified, `X` expired, `Z` deferred, `d` rollback deferred, `f` rollback failed, `k` rollback offered, `s` back to
//! its stage, `v` rolled back, `e` the deadline moves, `+u` with undo; figures are notes, which other tests prove.

use crate::rollout::MemberState;
use crate::rollout::member::cell::{Act, Column};
use crate::rollout::member::table::cell;

pub(super) const COLUMNS: [Column; 19] = [
    Column::Delivered,
    Column::Applying,
    Column::Applied,
    Column::Failed,
    Column::Other,
    Column::Equal,
    Column::Differs,
    Column::Well,
    Column::Ill,
    Column::Gone,
    Column::Back,
    Column::CapsLost,
    Column::Withheld,
    Column::Left,
    Column::Removed,
    Column::Deadline,
    Column::Exclude,
    Column::RollBack,
    Column::Stop,
];

#[rustfmt::skip]
const TABLE: &str = "
state              Delivd APPLYING APPLIED= FAILED other  Eq    Differs well  ill   gone  back  caps  withh.  Left  Removed deadline Excl. rollb. stop
queued             ·      ·        N        E2     ·      N3    ·       ·     ·     ·     ·     C     ·       E|K   R       !        E     K4     ·
backoff            ·      ·        A        ·4     S5     A     ·       ·     ·     ·     ·     C     J       E|K   R       Q        E     K      F!|T!
offered            D      G        A        J      ·      A     ·       ·     ·     B     ·     C+u   J+u|C+u L     R       T|Z+u    E+u   K      ·
delivered          ·      G        A        J6     ·      A     ·       A7    ·     B     ·     ·     C       L     R       T|U      E     K      ·
applying           ·      e        A        F      S5     A     ·       ·     ·     B     ·     ·     ·       L     R       T        E     K      ·
applied            ·      ·        V?       F!     S5|F!9 V?    ·       V?    ·     B     ·     ·     ·       L     R       T!|U     E     K      ·
absent             D      G        A        J|F    stage  A     stage   ·     ·     ·     s     ·     ·       L     R       Z+u|Z    E+u   K      ·
verified           ·      ·        ·        F!     S5|F!9 ·     ·       ·     ·     e     e     ·     ·       L     R       away     =     K      ·
unverified         ·      G        A        F!     S5     A     ·       A7    ·     e     e     ·     ·       L     R       away     =     K      ·
already-current    ·      ·        ·        ·      ·      ·     ·       ·     ·     ·     ·     ·     ·       ·     R       !        E     ·      ·
not-applicable     ·      ·        ·        ·      ·      ·     ·       ·     ·     ·     ·     ·     ·       ·     R       !        E     ·      ·
excluded           ·      ·        ·        ·      ·      ·     ·       ·     ·     ·     ·     ·     ·       ·     R       !        =     K?     ·
control            ·      ·        N        ·      ·      N3    ·       ·     ·     e     e     C     ·       E     R       away     E     ·      ·
removed            ·      ·        ·        ·      ·      ·     ·       ·     ·     ·     ·     ·     ·       ·     =       !        =     ·      ·
expired            ·      ·        ·        ·      ·      ·     ·       ·     ·     ·     ·     ·     ·       ·     R       !        =     d+u?   ·
failed             ·      ·        A        ·      S5     A     ·       ·     ·     ·     ·     ·     ·       L     R       !        E     K      ·
rejected           ·      ·        A        ·      ·      A     ·       ·     ·     ·     ·     ·     ·       L     R       !        E     v+u    ·
self-rolled-back   ·      ·        A        ·      ·      A     ·       ·     ·     ·     ·     ·     ·       L     R       !        E     v+u    ·
timed-out          ·      ·        A        F!     S5     A     ·       ·     ·     ·     ·     ·     ·       L     R       !        E     K      ·
deferred           D?     ·        A        F      S5     A     ·       ·     ·     ·     Q|D   ·     ·       E?    R       X        E     d+u?   ·
rollback-queued    ·      ·        v        ·      v      ·     ·       ·     ·     ·     ·     f     ·       ·     R       !        E     ·      E|F!
rollback-offered   ek     ek       v        f      v      v     ·       v7    ·     d     ·     f     f       ·     R       f|v      =     ·      ·
rolled-back        ·      ·        ·        f      ·      ·     ·       ·     ·     ·     ·     ·     ·       ·     R       !        =     ·      ·
rollback-failed    ·      ·        v        ·      v      v     ·       ·     ·     ·     ·     ·     ·       ·     R       !        =     =      ·
rollback-deferred  ·      ·        v        f      v      v     ·       ·     ·     ·     k     ·     ·       ·     R       f        =     ·      ·
";

fn letter(act: Act) -> &'static str {
    match act {
        Act::Applied => "A",
        Act::AppliedByHealth => "A7",
        Act::Applying => "G",
        Act::ApplyOver => "T|U",
        Act::ApplyingOver => "T",
        Act::AsStage => "stage",
        Act::AtPrevious => "v+u",
        Act::AwayOver => "away",
        Act::BackToStage => "s",
        Act::BackLate => "Q|D",
        Act::BackoffOver => "Q",
        Act::Complete => "V?",
        Act::Current => "N",
        Act::CurrentByEffective => "N3",
        Act::Delivered => "D",
        Act::DeliveredLate => "D?",
        Act::FailFinal => "F!",
        Act::Drop => "E|F!",
        Act::Exclude | Act::ExcludeWaiting | Act::LeaveQueue => "E",
        Act::ExcludeUndo => "E+u",
        Act::Expire => "X",
        Act::Extend | Act::GraceStarts | Act::GraceEnds => "e",
        Act::Fail => "F",
        Act::FailWhileBackingOff => "·4",
        Act::FailByStage => "J|F",
        Act::FailedBefore => "E2",
        Act::Gone => "B",
        Act::GiveUp => "F!|T!",
        Act::GraceOver => "Z+u|Z",
        Act::Impossible => "!",
        Act::Leave => "L",
        Act::LeaveDeferred => "E?",
        Act::LeaveTried => "E|K",
        Act::NotApplicable => "C",
        Act::NotApplicableUndo => "C+u",
        Act::Nothing => "=",
        Act::Note => "·",
        Act::OfferOver => "T|Z+u",
        Act::OfferRollback => "k",
        Act::Refuse => "J",
        Act::RefuseOrFail => "J6",
        Act::Remove => "R",
        Act::RolledBack | Act::RolledBackByEffective => "v",
        Act::RolledBackByHealth => "v7",
        Act::RollbackDefer => "d",
        Act::RollbackDeferUndo => "d+u?",
        Act::RollbackExtend => "ek",
        Act::RollbackFail | Act::RollbackExpire => "f",
        Act::RollbackOver => "f|v",
        Act::RollbackQueue => "K",
        Act::RollbackQueueTouched => "K?",
        Act::RollbackQueueTried => "K4",
        Act::VerifyOver => "T!|U",
        Act::WentBack => "S5",
        Act::WentBackOrEdited => "S5|F!9",
        Act::Withheld => "J+u|C+u",
    }
}

#[test]
fn the_table_is_what_it_is_meant_to_be() {
    let mut states = Vec::new();
    for line in TABLE.lines().filter(|line| !line.is_empty()).skip(1) {
        let mut cells = line.split_whitespace();
        let state: MemberState = cells.next().unwrap().parse().unwrap();
        states.push(state);
        for column in COLUMNS {
            assert_eq!(cells.next(), Some(letter(cell(state, column))), "{state}, {column:?}");
        }
        assert_eq!(cells.next(), None, "{state}");
    }
    assert_eq!(states, MemberState::ALL);
}

#[test]
fn who_has_settled_for_good_is_moved_by_nothing_but_its_removal_or_a_rollback() {
    for state in [MemberState::AlreadyCurrent, MemberState::NotApplicable, MemberState::Expired] {
        for column in COLUMNS {
            let act = cell(state, column);
            // What was delivered to one that has been away for too long is taken back by a rollback as well.
            let goes_back = state == MemberState::Expired && column == Column::RollBack;
            let may = goes_back || matches!(column, Column::Removed | Column::Exclude | Column::Deadline);
            assert!(may || act == Act::Note, "{state}, {column:?}: {act:?}");
        }
    }
}
