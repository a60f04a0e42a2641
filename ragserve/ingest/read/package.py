"""What is raised on a damaged Office package: by zipfile, lxml, python-docx and python-pptx.

The last two trust a package: where a part, element or attribute is missing they fail with whatever
the next statement raises.
"""

from __future__ import annotations

import struct
import zipfile
import zlib

from lxml import etree

PACKAGE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,  # an encrypted entry; its child NotImplementedError: an unknown compression
    etree.LxmlError,
    ValueError,
    AttributeError,
    KeyError,
    IndexError,
    TypeError,
    AssertionError,
)
