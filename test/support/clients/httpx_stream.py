"""Reads an event stream with httpx over HTTP/2 and prints each line, then `connection closed` after a regular end.

Arguments: the URL, the certificate file, and optionally the id of the last event.
"""

import sys

import httpx

url, certificate, *last_event_id = sys.argv[1:]
headers = {"accept": "text/event-stream"}
if last_event_id:
    headers["last-event-id"] = last_event_id[0]
with httpx.Client(http2=True, verify=certificate, timeout=60) as client:
    with client.stream("GET", url, headers=headers) as response:
        print("version", response.http_version, response.status_code, flush=True)
        for line in response.iter_lines():
            print(line.rstrip("\n"), flush=True)
print("connection closed", flush=True)
