"""What every writer of text shares: articles, capitals, and which combinations are held out."""

import zlib


def held_out(*combination, one_in=10):
    return zlib.crc32("|".join(map(str, combination)).encode()) % one_in == 0


def an(phrase):
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def cap(text):
    return text[0].upper() + text[1:]
