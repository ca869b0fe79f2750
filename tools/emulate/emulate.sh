#!/usr/bin/env bash
# emulate.sh BINARY [ARG...]: runs a Linux x86-64 program on a CPU that this machine may not have
# (Bochs' Sapphire Rapids: AVX-512, AMX; arrow_lake: AVX-VNNI without AVX-512), prints its output and exits with its exit status.
#   EMULATE_CACHE    where the emulator and the guest's kernel are kept (${TMPDIR:-/tmp}/melo-emulate)
#   EMULATE_ENV      the program's environment, such as "MELO_ISA=amx RUST_TEST_THREADS=1"
#   EMULATE_FILES    further files and folders the program reads, copied to the same paths
#   EMULATE_TIMEOUT  seconds until it is given up, with exit status 124 (1800)
#   EMULATE_VERBOSE  if set, the guest's console, with the CPU's flags, goes to stderr at the end
#   EMULATE_PREEMPT  if set, the program's threads may interrupt each other, see below
#   EMULATE_CPU, EMULATE_MEMORY, EMULATE_SUITE   sapphire_rapids, 1024 (MiB), trixie
# The first call fetches about 75 MB of Debian packages into the cache; nothing is installed on the
# system. The guest has no disk and no network, its / is a RAM disk, and its CPU has one core.
#
# Bochs 3.0 has AMX but not XFD, without which Linux turns AMX off: setcpuid=324 makes Linux (6.15 or
# later) believe in it. As no XFD trap then comes, Linux keeps no tiles for a thread: one that goes on
# after another has run gets SIGILL at its next tile instruction, until it loads a configuration. So
# the program runs under SCHED_FIFO, where threads take turns only when one waits or yields. A program
# with a thread that spins until another acts would hang so, and needs EMULATE_PREEMPT.
set -euo pipefail
(($#)) || { sed -n '2,/^set/{/^#/s/^# \?//p}' "$0" >&2; exit 2; }
cache=${EMULATE_CACHE:-${TMPDIR:-/tmp}/melo-emulate}
mkdir -p "$cache"
cache=$(realpath "$cache")
suite=${EMULATE_SUITE:-trixie}
root=$cache/$suite # The packages' files.
lib=$root/usr/lib/x86_64-linux-gnu

prepare() {
    local apt=$cache/apt mirror kernel options deb
    mkdir -p "$apt"/state/lists/partial "$apt"/cache/archives/partial
    : >"$apt/status" # No package counts as installed, so that apt fetches all that Bochs needs.
    mirror=$(cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null |
        awk '!m && /^URIs:/{m = $2} !m && /^deb /{m = ($2 ~ /^\[/) ? $4 : $2} END{print m}' || true)
    printf "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror %s main\n" \
        "$suite" "$suite-backports" >"$apt/sources.list"
    options=(-q -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::State="$apt/state" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache"
        -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update
    apt-get "${options[@]}" install -y --download-only --no-install-recommends \
        bochs bochs-term busybox-static isolinux syslinux-common xorriso
    kernel=linux-image-cloud-amd64 # Leads to the package of the version, and that to the kernel's.
    for deb in linux-image- linux-binary-; do
        kernel=$(apt-cache "${options[@]}" -o APT::Default-Release="$suite-backports" depends "$kernel" |
            awk -v p="$deb" '$1 == "Depends:" && index($2, p) == 1 {print $2}')
    done
    (cd "$apt/cache/archives" && apt-get "${options[@]}" download "$kernel")
    rm -rf "$root.part"
    mkdir -p "$root.part"/usr/{bin,sbin,lib,lib64}
    ln -s usr/{bin,sbin,lib,lib64} "$root.part"
    for deb in "$apt"/cache/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink --no-same-owner -C "$root.part"
    done
    mv "$root.part" "$root"
    rm -rf "$apt"
}

# TDPBSSD is of signed bytes, in Bochs 3.0 and 3.1 of unsigned ones: DPBDSS (cpu/avx/amx.cc, lines 282 and 283 of 3.0) casts them
# to Bit8u where it should to Bit8s. In Debian's 3.0+dfsg-1 six MOVZX become MOVSX here and two SHR SAR; other builds stay as they are.
# TDPBSUD and TDPBUSD are wrong alike, and left so.
signed_bytes() {
    local place
    [[ $(sha256sum <"$1") == 07fc8c4bee6efb24d690302db0f07159ad5a153c88bca64bb9345a4263ceb5aa* ]] || return 0
    cp "$1" "$1.part"
    for place in be:2743c0 be:2743c3 be:2743c7 be:2743ca be:2743df be:2743f3 f9:2743d4 fa:2743e8; do
        printf "\\x${place%:*}" | dd of="$1.part" bs=1 seek=$((0x${place#*:})) conv=notrunc status=none
    done
    mv "$1.part" "$1"
}

# Runs a program of $root with that folder's own C library.
loader=("$root/lib64/ld-linux-x86-64.so.2" --library-path "$lib:$lib/pulseaudio")

exec 9>"$cache/lock"
flock 9
[[ -d $root ]] || prepare >&2
signed_bytes "$root/usr/bin/bochs-bin"
work=$(mktemp -d "$cache/run.XXXXXX")
bochs=
trap '[[ -z $bochs ]] || { kill -9 "$bochs"; wait "$bochs"; } 2>/dev/null || true; rm -rf "$work"' EXIT

# The guest's RAM disk: the program, the libraries it names, and an init that runs it.
guest=$work/guest
mkdir -p "$guest"/{bin,proc,sys,dev,tmp} "$work/iso/isolinux"
cp "$root/usr/bin/busybox" "$guest/bin/busybox"
ln -s busybox "$guest/bin/sh"
binary=$(realpath "$1")
cp "$binary" "$guest/program"
strip --strip-debug "$guest/program" 2>/dev/null || true
chrt=$(command -v chrt)
libraries=$(ldd "$binary" "$chrt" 2>/dev/null | grep -o '/[^ :]* ' || true)
for file in $chrt $libraries ${EMULATE_FILES:-}; do
    mkdir -p "$guest$(dirname "$file")"
    cp -rLT "$file" "$guest$file"
done
{
    cat <<'END'
#!/bin/sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev; $b mount -t tmpfs tmp /tmp
$b stty -F /dev/ttyS1 115200 raw -echo
echo "<0>CPU: $($b grep -m 1 ^flags /proc/cpuinfo | $b tr ' ' '\n' | $b grep -E '^(f16c|fma|avx|amx)' | $b tr '\n' ' ')" >/dev/kmsg
cd /tmp
END
    printf '$b env -i PATH=/bin HOME=/tmp TMPDIR=/tmp %s ' "${EMULATE_ENV:-}"
    [[ -n ${EMULATE_PREEMPT:-} ]] || printf '%s -f 1 ' "$chrt"
    printf '%q ' /program "${@:2}"
    printf '%s\n' '</dev/null >/dev/ttyS1 2>&1' 'status=$?' \
        '$b stty -F /dev/ttyS1 sane # Waits until all is written.' \
        'echo "<0>emulate: exit status $status." >/dev/kmsg' '$b poweroff -f'
} >"$guest/init"
chmod +x "$guest/init"
(cd "$guest" && find . | "$root/usr/bin/busybox" cpio -o -H newc 2>/dev/null) | gzip -1 >"$work/iso/isolinux/initrd"

# A disc that boots the kernel with it. ACPI is off because Bochs' BIOS fails at turning it on.
cp "$root"/usr/lib/modules/*/vmlinuz "$work/iso/isolinux/linux"
cp "$root/usr/lib/ISOLINUX/isolinux.bin" "$root/usr/lib/syslinux/modules/bios/ldlinux.c32" "$work/iso/isolinux"
cat >"$work/iso/isolinux/isolinux.cfg" <<END
serial 0 115200
default linux
prompt 0
label linux
  kernel linux
  append initrd=initrd console=ttyS0,115200 quiet setcpuid=324 acpi=off nosmp tsc=reliable no_timer_check mitigations=off nokaslr audit=0 panic=-1
END
"${loader[@]}" "$root/usr/bin/xorriso" -as mkisofs -o "$work/boot.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat \
    -no-emul-boot -boot-load-size 4 -boot-info-table "$work/iso" 2>"$work/xorriso" || { cat "$work/xorriso" >&2; exit 125; }

# A clock of 1 GHz rather than Bochs' real speed: fewer timer interrupts. A screen that nobody looks at: that of `term` stops the
# guest when 4 kB of it have not been read.
cat >"$work/bochsrc" <<END
cpu: model=${EMULATE_CPU:-sapphire_rapids}, count=1, ips=1000000000, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest=${EMULATE_MEMORY:-1024}, host=${EMULATE_MEMORY:-1024}
romimage: file=$root/usr/share/bochs/BIOS-bochs-latest, options=fastboot
vgaromimage: file=$root/usr/share/vgabios/vgabios.bin
ata0-master: type=cdrom, path=$work/boot.iso, status=inserted
boot: cdrom
clock: sync=none
com1: enabled=1, mode=file, dev=$work/console
com2: enabled=1, mode=file, dev=$work/output
display_library: rfb, options="timeout=0"
config_interface: textconfig
log: $work/log
panic: action=fatal
END
cd "$work"
touch console output
export TERM=xterm LTDL_LIBRARY_PATH=$lib/bochs/plugins BXSHARE=$root/usr/share/bochs
timeout=${EMULATE_TIMEOUT:-1800}
"${loader[@]}" "$root/usr/bin/bochs-bin" -q -f bochsrc </dev/null >screen 2>errors 9>&- &
bochs=$!
tail -q -f -s 0.5 --pid="$bochs" output 2>/dev/null 9>&- &
tail=$!
end=$((SECONDS + timeout))
while kill -0 "$bochs" 2>/dev/null && ! grep -q 'emulate: exit status' console; do
    ((SECONDS < end)) || { tail -n 20 console >&2; echo "emulate: no end within $timeout s" >&2; exit 124; }
    sleep 0.5
done
{ kill -9 "$bochs"; wait "$bochs" "$tail"; } 2>/dev/null || true
bochs=
[[ -z ${EMULATE_VERBOSE:-} ]] || cat console >&2
status=$(sed -n 's/.*emulate: exit status \([0-9]*\)\..*/\1/p' console)
[[ -n $status ]] || { tail -n 40 console errors log >&2; echo "emulate: the guest stopped early" >&2; exit 125; }
exit "$status"
