"""Prints each line of a stream that httpx reads over HTTP/2, and `connection closed` at its regular end.

Arguments: the URL, the file of the certificate, and the id of the last event, if there is one.
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
