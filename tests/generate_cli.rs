//! The `generate` example as a program: what goes wrong is one line on standard error and exit code 1.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The example's binary, which cargo builds before it runs all tests.
fn generate() -> Command {
    let test = std::env::current_exe().unwrap();
    let path = test
        .parent()
        .and_then(Path::parent)
        .unwrap()
        .join("examples")
        .join(format!("generate{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is not there: run `cargo build --example generate` first", path.display());
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).env_remove("QUANTBLOCK_MODELS");
    command
}

/// An empty folder of this test's own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("quantblock-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The last line of standard error of a run that failed as it should.
#[track_caller]
fn complaint(output: Output) -> String {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert_eq!(out, "");
    assert!(!err.contains("panicked") && !err.contains("backtrace"), "{err}");
    let errors: Vec<&str> = err.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{err}");
    assert_eq!(err.lines().last(), errors.first().copied(), "{err}");
    errors[0].to_string()
}

#[track_caller]
fn fails(arguments: &[&str], says: &[&str]) {
    let error = complaint(generate().args(arguments).output().unwrap());
    for part in says {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

/// A GGUF file of metadata alone: string keys.
fn metadata(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes.extend((pairs.len() as u64).to_le_bytes());
    let string = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    };
    for (key, value) in pairs {
        string(&mut bytes, key);
        bytes.extend(8u32.to_le_bytes());
        string(&mut bytes, value);
    }
    bytes
}

#[test]
fn a_path_that_is_not_there() {
    fails(&["-m", "/no/such/model.gguf"], &["/no/such/model.gguf"]);
    fails(&["-m", "/no/such/model.gguf", "--no-mmap"], &["/no/such/model.gguf"]);
    fails(&["-m", "x.gguf", "-f", "/no/such/prompt.txt"], &["/no/such/prompt.txt"]);
}

#[test]
fn files_that_are_no_models() {
    let folder = Folder::new("garbage");
    let whole = metadata(&[("general.architecture", "llama"), ("general.name", "nothing")]);
    let cases: [(&str, &[u8], &str); 5] = [
        ("empty.gguf", b"", "empty.gguf"),
        ("garbage.gguf", &[0x5A; 4096], "garbage.gguf"),
        ("truncated.gguf", &whole[..whole.len() - 20], "truncated"),
        ("no-keys.gguf", &whole, "llama."),
        ("directory.gguf", b"", "directory.gguf"),
    ];
    for (name, bytes, says) in cases {
        let path = folder.file(name, bytes);
        if name.starts_with("directory") {
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
        }
        for flags in [&["-m", path.to_str().unwrap()][..], &["-m", path.to_str().unwrap(), "--no-mmap"]] {
            fails(flags, &[says]);
        }
    }
}

#[test]
fn an_architecture_that_is_not_there() {
    let folder = Folder::new("architecture");
    let path = folder.file("model.gguf", &metadata(&[("general.architecture", "perceptron")]));
    fails(&["-m", path.to_str().unwrap()], &["perceptron", "not supported"]);
}

#[test]
fn levels_that_are_not_there() {
    fails(&["--isa", "mmx"], &["mmx", "scalar", "avx2"]);
    for level in quantblock::Level::ALL.into_iter().filter(|level| !level.is_available()) {
        fails(&["--isa", level.name()], &[level.name(), "not supported"]);
    }
}

#[test]
fn a_cache_type_that_is_not_there() {
    fails(&["--cache-type", "q8_0"], &["q8_0", "i16, f16, f32"]);
}

/// Asks for the demo model where it cannot be fetched; nothing may stay behind.
#[track_caller]
fn cannot_fetch(path_variable: &Path, says: &str) {
    let cache = Folder::new(&format!("cache-{says}").replace(' ', "-"));
    let output = generate().env("XDG_CACHE_HOME", &cache.0).env("PATH", path_variable).output().unwrap();
    let error = complaint(output);
    assert!(error.contains(says) && error.contains("-m FILE"), "{error}");
    let left: Vec<_> =
        fs::read_dir(cache.0.join("quantblock/models")).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn no_python() {
    let empty = Folder::new("no-python");
    cannot_fetch(&empty.0, "install python3");
}

/// A python3 that is this script.
#[cfg(unix)]
fn python_that(script: &str) -> Folder {
    use std::os::unix::fs::PermissionsExt;
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let folder = Folder::new(&format!("python-{}", COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)));
    let path = folder.file("python3", format!("#!/bin/sh\n{script}\n").as_bytes());
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[cfg(unix)]
#[test]
fn no_pip() {
    let python = python_that("echo '/usr/bin/python3: No module named pip' >&2; exit 1");
    cannot_fetch(&python.0, "install pip");
}

#[cfg(unix)]
#[test]
fn no_network() {
    let python = python_that("echo 'WARNING: Retrying' >&2; echo 'ERROR: No matching distribution found' >&2; exit 1");
    cannot_fetch(&python.0, "is there a network?");
}

#[cfg(unix)]
#[test]
fn a_broken_download() {
    // pip succeeds, and unpacking writes something else: the last argument is the file to write.
    let python = python_that("for last; do :; done; case \"$1\" in -c) echo broken > \"$last\";; esac");
    cannot_fetch(&python.0, "SHA-256");
}

fn demo_model() -> String {
    let folder = std::env::var("QUANTBLOCK_MODELS").expect("QUANTBLOCK_MODELS names the folder of the models");
    format!("{folder}/smollm2.gguf")
}

#[test]
#[ignore = "needs QUANTBLOCK_MODELS"]
fn a_prompt_that_does_not_fit() {
    fails(&["-m", &demo_model(), "-c", "8"], &["8 positions"]);
    let model = fs::read(demo_model()).unwrap();
    let folder = Folder::new("truncated");
    for len in [0, 100, 10_000, 1_000_000, model.len() / 2, model.len() - 1000] {
        let path = folder.file("model.gguf", &model[..len]);
        fails(&["-m", path.to_str().unwrap()], &["model.gguf"]);
    }
}

#[test]
#[ignore = "needs QUANTBLOCK_MODELS"]
fn answers_are_the_same_on_every_level_and_number_of_threads() {
    let answer = |flags: &[&str]| {
        let model = demo_model();
        let flags = [&["-m", &model, "-n", "24", "-s", "7"], flags].concat();
        let output = generate().args(flags).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    };
    let (first, log) = answer(&[]);
    assert!(first.trim().len() > 10, "{first}");
    for part in ["210 × Q4_1", "kernels:", "load time", "prompt eval time", "tokens per second"] {
        assert!(log.contains(part), "{part:?} is not in {log}");
    }
    for level in quantblock::Level::ALL.into_iter().filter(|level| level.is_available()) {
        assert_eq!(answer(&["--isa", level.name()]).0, first, "{}", level.name());
    }
    for kind in ["f16", "f32"] {
        let text = answer(&["--cache-type", kind]).0;
        assert!(text.trim().len() > 10, "{text}");
    }
    for flags in [&["-t", "1"][..], &["-t", "3"], &["--native"], &["--no-mmap"]] {
        assert_eq!(answer(flags).0, first, "{flags:?}");
    }
    let (exact, _) = answer(&["--f32-activations", "--temp", "0"]);
    assert!(exact.contains("Paris"), "{exact}");
}

#[test]
#[ignore = "needs QUANTBLOCK_MODELS"]
fn a_conversation_goes_on_until_its_input_ends() {
    use std::io::Write;
    let mut child = generate()
        .args(["-m", &demo_model(), "-cnv", "-sys", "You are brief.", "-n", "8", "--temp", "0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"Hello\n\nAnd you?\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).lines().filter(|line| !line.trim().is_empty()).count().min(2), 2);
}
