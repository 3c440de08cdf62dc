"""Facts about licences: which are permissive, what people call them, and what their notices say.

Permissive are the licences that the Blue Oak Council rates from model to lead (list of version 15), and what
the Stack v2 adds to them from ScanCode's categories "permissive" and "public domain". All others are "other":
copyleft, source-available, non-commercial, or unknown to us.
"""


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split())


PERMISSIVE = _set(
    """
    BlueOak-1.0.0 BSD-2-Clause-Patent ADSL Apache-2.0 APAFML BSD-1-Clause BSD-2-Clause BSD-2-Clause-FreeBSD
    BSD-2-Clause-NetBSD BSD-2-Clause-Views BSL-1.0 DSDP ECL-1.0 ECL-2.0 hdparm ImageMagick Intel-ACPI ISC
    Linux-OpenIB MIT MIT-Modern-Variant MIT-testregex MIT-Wu MS-PL MulanPSL-1.0 Mup PostgreSQL SHL-0.5
    Spencer-99 UPL-1.0 Xerox Xfig

    0BSD AFL-1.1 AFL-1.2 AFL-2.0 AFL-2.1 AFL-3.0 AMDPLPA AML AMPAS ANTLR-PD ANTLR-PD-fallback Apache-1.0
    Apache-1.1 Artistic-2.0 Bahyph Barr bcrypt-Solar-Designer BSD-3-Clause BSD-3-Clause-Attribution
    BSD-3-Clause-Clear BSD-3-Clause-HP BSD-3-Clause-LBNL BSD-3-Clause-Modification
    BSD-3-Clause-No-Nuclear-License-2014 BSD-3-Clause-No-Nuclear-Warranty BSD-3-Clause-Open-MPI
    BSD-3-Clause-Sun BSD-4-Clause BSD-4-Clause-Shortened BSD-4-Clause-UC BSD-Source-Code bzip2-1.0.5
    bzip2-1.0.6 CC0-1.0 CFITSIO Clips CNRI-Jython CNRI-Python CNRI-Python-GPL-Compatible Cube curl eGenix
    Entessa FTL fwlw HPND-Fenneberg-Livingston HPND-sell-regexpr HTMLTIDY IBM-pibs ICU Info-ZIP Intel
    JasPer-2.0 Libpng libpng-2.0 libtiff LPPL-1.3c LZMA-SDK-9.22 MIT-0 MIT-advertising MIT-CMU MIT-enna
    MIT-feh MIT-open-group MITNFA MTLL MulanPSL-2.0 Multics Naumen NCSA Net-SNMP NetCDF NICTA-1.0
    NIST-Software NTP OGL-Canada-2.0 OLDAP-2.0 OLDAP-2.0.1 OLDAP-2.1 OLDAP-2.2 OLDAP-2.2.1 OLDAP-2.2.2
    OLDAP-2.3 OLDAP-2.4 OLDAP-2.5 OLDAP-2.6 OLDAP-2.7 OLDAP-2.8 OML OpenSSL PHP-3.0 PHP-3.01 Plexus PSF-2.0
    Python-2.0 Python-2.0.1 Ruby Saxpath SGI-B-2.0 SMLNJ SunPro SWL Symlinks TCL TCP-wrappers UCAR
    Unicode-DFS-2015 Unicode-DFS-2016 Unicode-3.0 UnixCrypt Unlicense VSL-1.0 W3C X11 XFree86-1.1 xlock Xnet
    xpp Zlib zlib-acknowledgement ZPL-2.0 ZPL-2.1

    AAL Adobe-2006 Afmparse Artistic-1.0 Artistic-1.0-cl8 Artistic-1.0-Perl Beerware blessing Borceux
    BSD-2-Clause-Darwin CECILL-B check-cvs ClArtistic Condor-1.1 Crossword CrystalStacker diffmark DOC EFL-1.0
    EFL-2.0 Fair FSFAP FSFUL FSFULLR Giftware GLWTPL HPND HPND-export-US IJG IJG-short Jam Kazlib Leptonica
    LPL-1.0 LPL-1.02 McPhee-slideshow MirOS mpich2 NAIST-2003 NASA-1.3 NBPL-1.0 Newsletr NLPL NRL NTP-0 OFFIS
    OGTSL OLDAP-1.1 OLDAP-1.2 OLDAP-1.3 OLDAP-1.4 psutils python-ldap Qhull Rdisc RSA-MD snprintf Spencer-86
    Spencer-94 SSH-short TU-Berlin-1.0 TU-Berlin-2.0 Vim W3C-19980720 W3C-20150513 Wsuipa WTFPL xinetd XSkat
    Zed Zend-2.0 ZPL-1.1

    Adobe-Glyph Bitstream-Charter Bitstream-Vera Boehm-GC BSD-4.3RENO BSD-4.3TAHOE
    BSD-Attribution-HPND-disclaimer Caldera CC-BY-1.0 CC-BY-2.0 CC-BY-2.5 CC-BY-3.0 CC-BY-3.0-US CC-BY-4.0
    CC-PDDC CDLA-Permissive-1.0 CDLA-Permissive-2.0 CERN-OHL-P-2.0 CMU-Mach COIL-1.0 Community-Spec-1.0 dtoa
    EPICS etalab-2.0 EUDatagrid FreeBSD-DOC FSFULLRWD GD Glulxe Graphics-Gems HaskellReport HP-1986
    HPND-Markus-Kuhn HPND-sell-variant iMatix JPNIC JSON Latex2e libselinux-1.0 LOOP Martin-Birgmeier metamail
    Minpack MIT-Festival mplus MS-LPL NIST-PD NIST-PD-fallback NLOD-1.0 NLOD-2.0 O-UDA-1.0 ODC-By-1.0 OFL-1.0
    OFL-1.0-RFN OFL-1.1 OFL-1.1-RFN OFL-1.1-no-RFN OGC-1.0 OGL-UK-1.0 OGL-UK-2.0 OGL-UK-3.0 OPUBL-1.0 PDDL-1.0
    SAX-PD SCEA SchemeReport Sendmail SGI-B-1.1 SHL-0.51 SSH-OpenSSH TermReadKey Widget-Workshop
    X11-distribute-modifications-variant

    LicenseRef-BSD LicenseRef-public-domain
    """
)
"""Blue Oak's model, gold and silver; its bronze; its lead; the Stack v2's; what notices say without naming one."""

AMENDMENTS = _set(
    """
    LicenseRef-CLA LicenseRef-DCO LicenseRef-scancode-dco-1.1 LicenseRef-scancode-generic-cla
    LicenseRef-scancode-google-cla LicenseRef-scancode-generic-trademark
    LicenseRef-scancode-warranty-disclaimer LicenseRef-trademark
    """
)
"""Notes beside a licence that do not change its kind (the Stack v2's `non_license_whitelist`)."""

_CALLED: dict[str, str] = {
    "0BSD": "bsd zero clause|zero clause bsd",
    "AFL-3.0": "academic free license 3.0",
    "AGPL-3.0-only": "agpl 3.0|agplv3|gnu agpl v3|gnu affero general public license v3",
    "AGPL-3.0-or-later": "agplv3+|gnu affero general public license v3 or later|"
    "gnu affero general public license v3+",
    "Apache-2.0": "apache|apache 2|apache 2.0|apache license|apache license 2.0|apache license version 2.0|"
    "apache2|apache software license|apache software license 2.0|apache license v2|apache license v2.0|asl 2.0|"
    "apache v2|apache license 2|apachev2|apache2.0|apache software license version 2.0",
    "Artistic-2.0": "artistic license 2.0|artistic 2.0",
    "BSD-2-Clause": "2 clause bsd|bsd 2 clause|simplified bsd|bsd 2|bsd 2 clause license|freebsd|"
    "bsd 2 clause simplified license",
    "BSD-3-Clause": "3 clause bsd|bsd 3 clause|new bsd|modified bsd|bsd 3|bsd 3 clause license|bsd new|"
    "new bsd license|modified bsd license|revised bsd|3 clause bsd license|bsd 3 clause new or revised license",
    "BSL-1.0": "boost|boost software license|boost software license 1.0|boost license|"
    "boost software license 1.0 bsl 1.0",
    "CC0-1.0": "cc0|cc0 1.0|cc0 1.0 universal|cc0 1.0 universal cc0 1.0 public domain dedication",
    "CDDL-1.0": "cddl|cddl 1.0",
    "EPL-1.0": "eclipse public license 1.0|eclipse public license 1.0 epl 1.0",
    "EPL-2.0": "eclipse public license 2.0|eclipse public license 2.0 epl 2.0",
    "EUPL-1.2": "european union public licence 1.2 eupl 1.2|eupl 1.2",
    "GPL-1.0-or-later": "gpl|gnu gpl|gnu general public license gpl|gnu general public license",
    "GPL-2.0-only": "gplv2|gpl 2|gpl 2.0|gpl v2|gnu gpl v2|gnu gpl 2|gnu general public license v2 gplv2",
    "GPL-2.0-or-later": "gplv2+|gpl 2+|gpl v2+|gnu gpl v2 or later|gnu general public license v2 or later gplv2+",
    "GPL-3.0-only": "gplv3|gpl 3|gpl 3.0|gpl v3|gnu gpl v3|gnu gpl 3|gnu general public license v3 gplv3|"
    "gnu general public license v3|gnu general public license v3.0",
    "GPL-3.0-or-later": "gplv3+|gpl 3+|gpl v3+|gnu gpl v3 or later|"
    "gnu general public license v3 or later gplv3+|gnu general public license v3 or later",
    "HPND": "historical permission notice and disclaimer hpnd",
    "ISC": "isc license|isc license iscl|iscl",
    "LGPL-2.0-or-later": "lgpl|gnu lgpl|gnu library or lesser general public license lgpl",
    "LGPL-2.1-only": "lgplv2.1|lgpl 2.1|lgpl v2.1",
    "LGPL-2.1-or-later": "lgplv2+|lgpl 2.1+|lgplv2.1+|gnu lesser general public license v2 or later lgplv2+",
    "LGPL-3.0-only": "lgplv3|lgpl 3.0|lgpl v3|gnu lesser general public license v3 lgplv3",
    "LGPL-3.0-or-later": "lgplv3+|lgpl 3.0+|gnu lesser general public license v3 or later lgplv3+",
    "MIT": "mit license|the mit license|expat|mit license mit|mit licence|expat license|mit/x11|mit x11|mit expat",
    "MIT-0": "mit no attribution|mit no attribution license mit 0",
    "MPL-1.1": "mpl 1.1|mozilla public license 1.1 mpl 1.1",
    "MPL-2.0": "mpl 2|mpl 2.0|mpl|mozilla public license 2.0|mozilla public license 2.0 mpl 2.0|mpl v2.0|mplv2.0",
    "NCSA": "university of illinois/ncsa open source license|ncsa license",
    "OFL-1.1": "sil open font license|ofl|sil open font license 1.1 ofl 1.1|sil open font license 1.1",
    "PSF-2.0": "psf|python software foundation license|psf license|psfl|psf 2.0|python license",
    "PostgreSQL": "postgresql license",
    "Unlicense": "the unlicense|the unlicense unlicense",
    "WTFPL": "do what the fuck you want to public license|wtfpl 2.0",
    "ZPL-2.1": "zpl 2.1|zope public license|zope public license 2.1|zpl",
    "Zlib": "zlib license|zlib/libpng license|zlib libpng|zlib/libpng",
    "LicenseRef-BSD": "bsd|bsd license|bsd licence|bsd style|bsd style license",
    "LicenseRef-public-domain": "public domain|publicdomain|public domain dedication",
    "LicenseRef-proprietary": "proprietary|commercial|unlicensed|private|other/proprietary license|"
    "all rights reserved|proprietary license|closed source",
}
CALLED = {name: spdx for spdx, names in _CALLED.items() for name in names.split("|")}
"""What people write, in lower case with single blanks for hyphens and commas → SPDX identifier."""

NOTICES: tuple[tuple[str, str], ...] = (
    ("apache license version 2.0", "Apache-2.0"),
    ("apache 2.0 license", "Apache-2.0"),
    ("licensed under the apache license 2.0", "Apache-2.0"),
    ("apache.org licenses license 2.0", "Apache-2.0"),
    ("apache software license version 1.1", "Apache-1.1"),
    ("boost software license version 1.0", "BSL-1.0"),
    ("mozilla public license version 1.1", "MPL-1.1"),
    ("mozilla public license version 2.0", "MPL-2.0"),
    ("mozilla public license v 2.0", "MPL-2.0"),
    ("mozilla.org mpl 2.0", "MPL-2.0"),
    ("netscape public license", "NPL-1.1"),
    ("eclipse public license v 2.0", "EPL-2.0"),
    ("eclipse public license 2.0", "EPL-2.0"),
    ("eclipse public license v2.0", "EPL-2.0"),
    ("eclipse public license v1.0", "EPL-1.0"),
    ("eclipse public license v 1.0", "EPL-1.0"),
    ("common public license", "CPL-1.0"),
    ("common development and distribution license", "CDDL-1.0"),
    ("european union public licence", "EUPL-1.2"),
    ("server side public license", "SSPL-1.0"),
    ("business source license", "BUSL-1.1"),
    ("elastic license 2.0", "Elastic-2.0"),
    ("apple public source license", "APSL-2.0"),
    ("cecill c", "CECILL-C"),
    ("cecill b", "CECILL-B"),
    ("cecill license", "CECILL-2.1"),
    ("academic free license", "AFL-3.0"),
    ("zope public license zpl version 2.1", "ZPL-2.1"),
    ("zope public license version 2.1", "ZPL-2.1"),
    ("python software foundation license", "PSF-2.0"),
    ("licensed to psf under a contributor agreement", "PSF-2.0"),
    ("version 3.01 of the php license", "PHP-3.01"),
    ("university of illinois open source license", "NCSA"),
    ("creative commons attribution noncommercial", "CC-BY-NC-4.0"),
    ("creative commons attribution sharealike", "CC-BY-SA-4.0"),
    ("creativecommons.org publicdomain zero", "CC0-1.0"),
    ("cc0 1.0 universal", "CC0-1.0"),
    ("do what the fuck you want to public license", "WTFPL"),
    ("free and unencumbered software released into the public domain", "Unlicense"),
    ("dedicated to the public domain", "LicenseRef-public-domain"),
    ("placed in the public domain", "LicenseRef-public-domain"),
    ("placed into the public domain", "LicenseRef-public-domain"),
    ("released into the public domain", "LicenseRef-public-domain"),
    ("released to the public domain", "LicenseRef-public-domain"),
    ("code is in the public domain", "LicenseRef-public-domain"),
    ("file is in the public domain", "LicenseRef-public-domain"),
    ("the author disclaims copyright to this source code", "blessing"),
    ("under the same terms as perl itself", "Artistic-1.0-Perl OR GPL-1.0-or-later"),
    ("under the terms of the mit license", "MIT"),
    ("licensed under the mit license", "MIT"),
    ("licensed under the mit licence", "MIT"),
    ("licensed under the mit x11 license", "MIT"),
    ("released under the mit license", "MIT"),
    ("distributed under the mit license", "MIT"),
    ("distributed under the mit software license", "MIT"),
    ("governed by an mit style license", "MIT"),
    ("available under the mit license", "MIT"),
    ("opensource.org licenses mit", "MIT"),
    ("or the mit license", "MIT"),
    ("freely distributed under the mit license", "MIT"),
    ("under the isc license", "ISC"),
    ("licensed under the 3 clause bsd license", "BSD-3-Clause"),
    ("under the new bsd license", "BSD-3-Clause"),
    ("under the modified bsd license", "BSD-3-Clause"),
    ("under the terms of the modified bsd license", "BSD-3-Clause"),
    ("under the bsd 3 clause license", "BSD-3-Clause"),
    ("under the simplified bsd license", "BSD-2-Clause"),
    ("under the bsd 2 clause license", "BSD-2-Clause"),
    ("under the bsd license", "LicenseRef-BSD"),
    ("under the terms of the bsd license", "LicenseRef-BSD"),
    ("by a bsd style license", "LicenseRef-BSD"),
    ("under the bsd style license", "LicenseRef-BSD"),
    ("under a bsd style license", "LicenseRef-BSD"),
    ("unicode.org copyright.html", "Unicode-3.0"),
    ("unicode.org terms of use.html", "Unicode-3.0"),
    ("altered source versions must be plainly marked as such", "Zlib"),
    ("confidential and proprietary", "LicenseRef-proprietary"),
    ("proprietary and confidential", "LicenseRef-proprietary"),
    ("retain all intellectual property and proprietary rights", "LicenseRef-proprietary"),
    ("unauthorized copying", "LicenseRef-proprietary"),
    ("without an express license agreement", "LicenseRef-proprietary"),
    ("strictly prohibited without", "LicenseRef-proprietary"),
    ("contains trade secrets", "LicenseRef-proprietary"),
    ("for non commercial use only", "LicenseRef-proprietary"),
    ("for noncommercial use only", "LicenseRef-proprietary"),
)
"""What a notice says, in words of lower case with single blanks for all signs but dots and pluses → SPDX."""
