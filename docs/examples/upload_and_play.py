"""Uploads a video to an iMira node, waits for it, and plays it: a platform in 60 lines."""
import argparse
import json
import os
import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from urllib.parse import urljoin

import requests
from cryptography.hazmat.primitives import hashes, serialization as form
from cryptography.hazmat.primitives.asymmetric import padding, rsa

parser = argparse.ArgumentParser(description=__doc__)
for name in ("control", "platform_key", "video"):
    parser.add_argument(name)  # http://10.0.0.11:7301 platform.key.pem film.mp4
args, SHA256, BLOCK = parser.parse_args(), hashes.SHA256(), 1 << 20
OAEP, PSS = padding.OAEP(padding.MGF1(SHA256), SHA256, None), padding.PSS(padding.MGF1(SHA256), 32)
key = form.load_pem_private_key(open(args.platform_key, "rb").read(), None)
der = key.public_key().public_bytes(form.Encoding.DER, form.PublicFormat.SubjectPublicKeyInfo)
user, http = rsa.generate_private_key(65537, 2048), requests.Session()
http.hooks["response"] = lambda answer, **_: None if answer.ok else parser.error(answer.text)
node = http.get(args.control + "/v1/node").json()


def sign(kind, seconds, **claims):
    me, now = sha256(der).hexdigest(), int(time.time())
    claims |= dict(iss=me, aud=node["peer_id"], net=node["network_id"], iat=now, exp=now + seconds)
    header = dict(alg="PS256", kid=me, typ=kind)
    parts = [urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=") for p in (header, claims)]
    signature = urlsafe_b64encode(key.sign(b".".join(parts), PSS, SHA256)).rstrip(b"=")
    return b".".join([*parts, signature]).decode()


def get_token(**claims):
    n = urlsafe_b64encode(user.public_key().public_numbers().n.to_bytes(256)).rstrip(b"=").decode()
    jwk = dict(kty="RSA", n=n, e="AQAB")
    jws = sign("imira-request", 30, jti=os.urandom(16).hex(), jwk=jwk, **claims)
    jose = {"Content-Type": "application/jose"}
    answer = http.post(args.control + "/v1/tokens", jws, headers=jose).json()
    return user.decrypt(urlsafe_b64decode(answer["encrypted_token"] + "=="), OAEP).decode(), answer


size, publication = os.stat(args.video).st_size, os.urandom(16).hex()
authority = sign("imira-authority", 3600, pub=publication, bytes=4 * size + (1 << 30))
token, job = get_token(act="upload", pub=publication, size=size, auth=authority)
http.put(job["upload_url"], open(args.video, "rb"), headers={"Authorization": "Bearer " + token})
while (status := http.get(job["upload_url"]).json())["phase"] not in ("ready", "rejected"):
    time.sleep(1)
token, play = get_token(act="playback", content=status["content_key"] or parser.error(str(status)))
base, paths = play["temporary_url"] + token + "/", ["files/master.m3u8"]
known = {fragment["sha256"] for fragment in http.get(base + "fragments").json()["fragments"]}
for path in paths:  # which grows: a playlist names others, and segments
    file = http.get(base + path).content
    if any(sha256(file[i:i + BLOCK]).hexdigest() not in known for i in range(0, len(file), BLOCK)):
        parser.error(path + " is not what was uploaded")
    lines = file.decode() if path.endswith(".m3u8") else ""
    paths += [urljoin(path, a or b) for a, b in re.findall(r'URI="(.+?)"|^([^#\s]+)', lines, re.M)]
print(f"{status['content_key']}: {len(paths)} files of {len(known)} fragments")
