//! The image with the program in Python, from the Python of this machine.
//!
//! The program brings a script that lays it out with everything it needs; here the result becomes an image.
//! Apart from [`crate::images`], since not every machine has a Python and only one test needs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use testbed::image::ImageSpec;

use crate::error::{Error, Result};
use crate::{images, repository};

/// An application with the SDK for Python.
pub const IMAGE: &str = "otelagent-test/python-sdk:1";

/// How the program is started, as its script says.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("PYTHONHOME", "/python"),
    ("PYTHONPATH", "/app/packages"),
    ("LD_LIBRARY_PATH", "/python/shared"),
];

/// Why the image cannot be had on this machine, if it cannot.
pub fn obstacle() -> Option<&'static str> {
    if images::chosen().is_some() {
        return None;
    }
    let asks = "import pip, sys; sys.exit(sys.version_info < (3, 10))";
    let asked = Command::new("python3").args(["-c", asks]).output();
    let able = asked.is_ok_and(|output| output.status.success());
    (!able).then_some("there is no python3 of 3.10 or newer with pip")
}

/// Makes the image, and returns its file; none where images are taken as they are, this one among them.
pub fn ensure() -> Result<Option<PathBuf>> {
    if images::chosen().is_some() {
        return Ok(None);
    }
    let folder = format!("python-sdk-{}", std::process::id());
    let folder = images::target_directory().join(folder);
    let made = make(&folder);
    let _ = fs::remove_dir_all(&folder);
    made.map(Some)
}

fn make(folder: &Path) -> Result<PathBuf> {
    let _ = fs::remove_dir_all(folder);
    let script = repository().join("lab/apps/python-sdk/bundle.py");
    eprintln!("demo: lay out the program in Python ...");
    let output = Command::new("python3")
        .arg(script)
        .arg(folder)
        .output()
        .map_err(Error::io("run python3"))?;
    if !output.status.success() {
        return Err(Error::Build {
            what: "the program in Python".to_owned(),
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    let mut files = Vec::new();
    collect(folder, "", &mut files)?;
    let mut spec = ImageSpec {
        name: IMAGE.to_owned(),
        entrypoint: vec!["/python/bin/python3".to_owned(), "/app/main.py".to_owned()],
        files,
        ..ImageSpec::default()
    };
    let environment = ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned()));
    spec.env.extend(environment);
    images::put(&spec)
}

/// Every file of a folder, with its place in the image.
fn collect(folder: &Path, inner: &str, files: &mut Vec<(PathBuf, String)>) -> Result<()> {
    let unreadable = || Error::io(format!("read {}", folder.display()));
    for entry in fs::read_dir(folder).map_err(unreadable())? {
        let entry = entry.map_err(unreadable())?;
        let inner = format!("{inner}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().map_err(unreadable())?.is_dir() {
            collect(&entry.path(), &inner, files)?;
        } else {
            files.push((entry.path(), inner));
        }
    }
    Ok(())
}
