#!/bin/sh
# Text on stdin to a page on stdout.
echo "<!doctype html><link rel=stylesheet href=assets/site.css>"
sed -e "s/NAME/$1/" -e 's/.*/<p>&<\/p>/'
