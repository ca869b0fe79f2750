# Homebrew: Formula/melo-vit.rb of a tap. @REPOSITORY@ and the digest, of the forge's archive of the tag, are filled in at a release.
class MeloVit < Formula
  desc "Low-rank plug-ins on a frozen Vision Transformer for medical images"
  homepage "@REPOSITORY@"
  url "@REPOSITORY@/archive/refs/tags/v@VERSION@.tar.gz"
  sha256 "@SHA256@"
  license any_of: ["MIT", "Apache-2.0"]

  depends_on "rust" => :build

  def install
    system "cargo", "install", *std_cargo_args(path: "crates/cli"), "--features", "object-store queue parquet"
    generate_completions_from_executable(bin/"melo", "completions")
    system bin/"melo", "man", man1
  end

  service do
    run [opt_bin/"melo", "serve", "--config", etc/"melo/serve.toml"]
    environment_variables MELO_SERVE_STATE: var/"lib/melo"
    keep_alive crashed: true
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/melo --version")
    system bin/"melo", "completions", "bash"
  end
end
