"""Prints the body of a URL. Trusts the certificates in SSL_CERT_FILE, checked as strictly as Python 3.13 does."""

import ssl
import sys
from urllib.request import urlopen

context = ssl.create_default_context()
context.verify_flags |= ssl.VERIFY_X509_STRICT
print(urlopen(sys.argv[1], context=context).read().decode(), end="")
