//! The workspace keeps its own rules. One test for each check; that the checks can fail is shown beside them.

use xtask::check::Check;
use xtask::workspace::Workspace;

fn holds(name: &str) {
    let check =
        Check::ALL.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no check `{name}`"));
    match check.violations(&Workspace::here()) {
        Ok(found) => assert!(found.is_empty(), "\n{}\n", found.join("\n")),
        Err(error) => panic!("{error}"),
    }
}

macro_rules! checks {
    ($($test:ident: $name:literal;)*) => {
        $(#[test]
        fn $test() {
            holds($name);
        })*

        #[test]
        fn every_check_is_a_test() {
            let tested = [$($name),*];
            for check in Check::ALL {
                assert!(tested.contains(&check.name), "`{}` is not tested", check.name);
            }
        }
    };
}

checks! {
    dependencies_point_the_way_of_the_layers: "dependencies point the way of the layers";
    pure_crates_are_built_from_pure_crates: "pure crates are built from pure crates";
    pure_code_reads_no_clock_and_does_no_io: "pure code reads no clock and does no IO";
    libraries_are_broken_on_purpose_in_one_way_only: "libraries are broken on purpose in one way only";
    rollouts_are_decided_alike_in_every_run_and_on_every_machine:
        "rollouts are decided alike in every run and on every machine";
    licences_are_on_the_list: "licences are on the list";
    no_banned_crate_is_built_in: "no banned crate is built in";
    source_files_stay_within_their_length: "source files stay within their length";
    no_file_names_a_path_of_one_machine: "no file names a path of one machine";
    links_between_documents_lead_somewhere: "links between documents lead somewhere";
}
