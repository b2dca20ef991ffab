//! Which test functions exist: Rust sources are parsed, nothing is guessed from text.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Item};

use super::TestPath;

/// Macros whose body declares test functions: what stands at the top level of an invocation as `fn name` is a test.
const TEST_MACROS: [&str; 3] = ["on_both_frame_readers", "on_both_transports", "proptest"];

/// The packages of a Cargo workspace and the test functions in their files.
#[derive(Debug)]
pub struct Workspace {
    packages: BTreeMap<String, PathBuf>,
    tests: RefCell<BTreeMap<PathBuf, BTreeSet<String>>>,
}

impl Workspace {
    /// Reads the workspace manifest in `root` and the package names of its members.
    ///
    /// # Errors
    ///
    /// A manifest that cannot be read or has no members.
    pub fn at(root: &Path) -> Result<Self, SourceError> {
        let members = manifest(root)?
            .get("workspace")
            .and_then(|workspace| workspace.get("members")?.as_array().cloned())
            .ok_or_else(|| SourceError::Unusable {
                path: root.to_owned(),
                what: "no workspace members".to_owned(),
            })?;
        let mut packages = BTreeMap::new();
        for member in members.iter().filter_map(toml::Value::as_str) {
            let directory = root.join(member);
            let name = manifest(&directory)?
                .get("package")
                .and_then(|package| Some(package.get("name")?.as_str()?.to_owned()))
                .ok_or_else(|| SourceError::Unusable {
                    path: directory.clone(),
                    what: "no package name".to_owned(),
                })?;
            packages.insert(name, directory);
        }
        Ok(Self { packages, tests: RefCell::default() })
    }

    /// Finds the test, or says what is missing.
    ///
    /// A function counts if it carries a test attribute (`#[test]`, `#[tokio::test]` …) and no `#[ignore]`, or stands in
    /// an invocation of a macro that makes tests.
    ///
    /// # Errors
    ///
    /// The package is unknown, its file missing or not Rust, or no such test is in it.
    pub fn find(&self, test: &TestPath) -> Result<(), SourceError> {
        let directory = self
            .packages
            .get(&test.package)
            .ok_or_else(|| SourceError::NoPackage { package: test.package.clone() })?;
        let path = directory.join(&test.file);
        if let Some(known) = self.tests.borrow().get(&path) {
            return found(known, test);
        }
        let text = fs::read_to_string(&path)
            .map_err(|source| SourceError::Unusable { path: path.clone(), what: source.to_string() })?;
        let tests = tests_in(&text)
            .map_err(|fault| SourceError::Unusable { path: path.clone(), what: fault.to_string() })?;
        let outcome = found(&tests, test);
        self.tests.borrow_mut().insert(path, tests);
        outcome
    }
}

/// Why a test could not be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The workspace has no such package.
    #[error("no package {package} in the workspace")]
    NoPackage {
        /// Its name.
        package: String,
    },
    /// The file has no such test.
    #[error("no test function {function} in {file} of {package}")]
    NoTest {
        /// Name of the package.
        package: String,
        /// The file within it.
        file: String,
        /// Name of the function.
        function: String,
    },
    /// A file is missing or is not what it should be.
    #[error("{}: {what}", path.display())]
    Unusable {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

fn found(tests: &BTreeSet<String>, test: &TestPath) -> Result<(), SourceError> {
    if tests.contains(&test.function) {
        return Ok(());
    }
    Err(SourceError::NoTest {
        package: test.package.clone(),
        file: test.file.clone(),
        function: test.function.clone(),
    })
}

fn manifest(directory: &Path) -> Result<toml::Table, SourceError> {
    let path = directory.join("Cargo.toml");
    let unusable = |what: String| SourceError::Unusable { path: path.clone(), what };
    let text = fs::read_to_string(&path).map_err(|fault| unusable(fault.to_string()))?;
    toml::from_str(&text).map_err(|fault| unusable(fault.to_string()))
}

/// Names of all test functions in Rust source text.
fn tests_in(text: &str) -> syn::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    collect(&syn::parse_file(text)?.items, &mut names);
    Ok(names)
}

fn collect(items: &[Item], names: &mut BTreeSet<String>) {
    for item in items {
        match item {
            Item::Fn(function) if is_test(&function.attrs) => {
                names.insert(function.sig.ident.to_string());
            }
            Item::Mod(module) => {
                if let Some((_, items)) = &module.content {
                    collect(items, names);
                }
            }
            Item::Macro(invocation) => {
                let name = invocation.mac.path.segments.last().map(|segment| segment.ident.to_string());
                if name.is_some_and(|name| TEST_MACROS.contains(&name.as_str())) {
                    functions(invocation.mac.tokens.clone(), names);
                }
            }
            _ => {}
        }
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    let last =
        |attribute: &Attribute| attribute.path().segments.last().map(|segment| segment.ident.to_string());
    let carries = |name: &str| attributes.iter().any(|attribute| last(attribute).as_deref() == Some(name));
    carries("test") && !carries("ignore")
}

/// `fn name` at the top level of a macro's body; a function within a function is no test.
fn functions(tokens: TokenStream, names: &mut BTreeSet<String>) {
    let mut after_fn = false;
    for token in tokens {
        match token {
            TokenTree::Ident(word) if word == "fn" => after_fn = true,
            TokenTree::Ident(word) if after_fn => {
                names.insert(word.to_string());
                after_fn = false;
            }
            _ => after_fn = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r##"
        fn helper() {}
        #[test]
        fn plain() { fn inner() {} }
        #[test]
        #[ignore]
        fn skipped() {}
        // #[test] fn commented() {}
        const TEXT: &str = "#[test] fn quoted() {}";
        mod tests {
            #[tokio::test(flavor = "current_thread")]
            async fn with_runtime() {}
            proptest! { #[test] fn property(x in 0..3) { fn nested() {} } }
            on_both_transports! { /// Doc.
                async fn on_each(link: Wire) {} }
            other! { fn unrelated() {} }
        }
    "##;

    #[test]
    fn only_functions_that_run_as_tests_count() {
        let names: Vec<String> = tests_in(SOURCE).unwrap().into_iter().collect();
        assert_eq!(names, ["on_each", "plain", "property", "with_runtime"]);
    }
}
