"""A dma-buf read by Mesa's driver, confined: in a virtual machine, because this one may have no DRM device.

Linux's vgem makes the buffers, its node stands for a GPU's, and Mesa's driver for devices without a GPU (kms_swrast) reads
them. tests/integration/dmabuf_probe.c is the program; unit tests have the rest of the way (test_dmabuf.c).
"""

import glob
import os
import shutil
import subprocess

import qemu
import qrdp
from rig import Rig, full

LIBRARIES = "/usr/lib/x86_64-linux-gnu"


def libraries(path):
    """What the dynamic linker loads for a file."""
    lines = subprocess.run(["ldd", path], stdout=subprocess.PIPE, check=True).stdout.decode().splitlines()
    words = [line.split() for line in lines]
    return [w[2] if len(w) > 2 and w[1] == "=>" else w[0] for w in words if w[0] != "linux-vdso.so.1"]


@full
class DmabufTest(Rig):
    def archive(self, files):
        """An initramfs with files {path inside: path here} and their libraries, behind the test guest's."""
        root = self.path("root")
        wanted = dict(files)
        for path in files.values():
            if not path.endswith(".ko"):
                wanted.update({library: library for library in libraries(path)})
        for inside, path in wanted.items():
            place = root + inside
            os.makedirs(os.path.dirname(place), exist_ok=True)
            shutil.copyfile(path, place)
            os.chmod(place, 0o755)
        names = subprocess.run(["find", "."], cwd=root, stdout=subprocess.PIPE, check=True).stdout
        packed = subprocess.run(["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"], cwd=root, input=names,
                                stdout=subprocess.PIPE, check=True).stdout
        with open(self.path("initramfs"), "wb") as out, open(os.path.join(qemu.GUEST_DIR, "initramfs"), "rb") as guest:
            shutil.copyfileobj(guest, out)
            out.write(b"\0" * (-out.tell() % 512))
            out.write(packed)
        shutil.rmtree(root)
        return self.path("initramfs")

    def test_read(self):
        build = os.path.dirname(os.path.dirname(qrdp.plain_binary()))
        module = os.path.join(build, "src", "qrdp-gbm.so")
        drivers = glob.glob(LIBRARIES + "/dri/kms_swrast_dri.so")
        vgem = glob.glob(qemu.GUEST_DIR + "/linux-image-*/lib/modules/*/kernel/drivers/gpu/drm/vgem/vgem.ko*")
        if not os.path.exists(module) or not drivers or not vgem or not vgem[0].endswith(".ko"):
            self.skipTest("needs libgbm-dev, libgl1-mesa-dri and a kernel with vgem")
        files = {"/probe/dmabuf-probe": os.path.join(build, "tests", "integration", "dmabuf-probe"),
                 "/probe/qrdp-gbm.so": module, "/probe/vgem.ko": vgem[0]}
        for path in drivers + glob.glob(LIBRARIES + "/gbm/*.so"):
            files[path] = path
        machine = self.machine(video="std", memory=1200, initrd=self.archive(files))
        machine.agent.shell("modprobe drm_shmem_helper; insmod /probe/vgem.ko; mkdir /run/dri")
        card = machine.agent.shell("cd /sys/class/drm; for c in card?; do readlink $c/device | grep -q vgem && "
                                   "echo $c; done; true").strip()
        self.assertTrue(card, machine.agent.shell("ls -l /sys/class/drm /sys/class/drm/card*/"))
        machine.agent.shell("mknod /run/dri/renderD128 c 226 %s" % card[len("card"):])
        status, output = machine.agent.run("cd /probe && QRDP_MODULE_DIR=/probe ./dmabuf-probe /run/dri /dev/dri/%s 2>&1"
                                           % card, 60)
        self.assertEqual(status, 0, output)
        self.assertIn("system call filter", output)
        self.assertIn("exact", output)
