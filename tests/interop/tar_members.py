"""Prints what a tar archive on standard input holds, as JSON: the members in their order, and how long it is."""

import json
import sys
import tarfile

members = []
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
    for member in archive:
        members.append(
            {
                "name": member.name,
                "type": member.type.decode(),
                "mode": oct(member.mode),
                "owner": [member.uid, member.gid, member.uname, member.gname],
                "link": member.linkname,
                "size": member.size,
                "mtime": member.mtime,
                "pax": sorted(member.pax_headers),
            }
        )
json.dump(members, sys.stdout)
