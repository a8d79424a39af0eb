#!/usr/bin/env python3
"""Builds Fairway from the sources in this folder and makes the run that this folder records.

  python3 train_gpt.py --data DIR [--tokenizer FILE] [--seed N]   train, pack, score
  python3 train_gpt.py --eval --data DIR                          score the model in this folder
  python3 train_gpt.py --dry-run                                  check and unpack, nothing more

DATA_PATH, TOKENIZER_PATH and SEED in the environment stand for the first three options. Needs cmake,
pkg-config, a C compiler and the libraries that README.md lists; from Python, only what comes with it.
"""
import argparse
import configparser
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile

RECORD = {}  # `fairway submit` fills this in: names, sizes and SHA-256 of the files, and the INI

HERE = os.path.dirname(os.path.abspath(__file__))


def refuse(sentence):
    print('train_gpt.py: ' + sentence, file=sys.stderr)
    sys.exit(2)


def check(part):
    """The file is there, and is the one that was recorded."""
    path = os.path.join(HERE, part['file'])
    try:
        with open(path, 'rb') as file:
            data = file.read()
    except OSError as problem:
        refuse('%s: %s' % (path, problem.strerror))
    found = hashlib.sha256(data).hexdigest()
    if found != part['sha256']:
        refuse('%s: its SHA-256 is %s instead of %s' % (path, found, part['sha256']))
    return len(data)


def unpack(place):
    """The bundle into place/code, and nothing else there; files that are equal keep their times."""
    code = os.path.join(place, 'code')
    known = set()
    with tarfile.open(os.path.join(HERE, RECORD['code']['file']), 'r:xz') as bundle:
        for member in bundle:
            parts = member.name.split('/')
            if not member.isfile() or member.name.startswith('/') or '..' in parts:
                refuse('%s: %s is no file below the folder' % (RECORD['code']['file'], member.name))
            path = os.path.join(code, *parts)
            known.add(path)
            data = bundle.extractfile(member).read()
            if os.path.isfile(path) and open(path, 'rb').read() == data:
                continue
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, 'wb') as file:
                file.write(data)
            os.chmod(path, member.mode & 0o755)
    for folder, _, names in os.walk(code):
        for name in names:
            if os.path.join(folder, name) not in known:
                os.remove(os.path.join(folder, name))
    return code


def build(place, code):
    """The program: built from its sources, or as it is where there are none."""
    if not os.path.exists(os.path.join(code, 'core', 'main.c')):
        return os.path.join(code, 'binaries', 'fairway')
    made = os.path.join(place, 'release')
    command = ['cmake', '-S', code, '-B', made, '-DCMAKE_BUILD_TYPE=Release', '-DFAIRWAY_TESTS=OFF']
    if shutil.which('ninja') and not os.path.exists(os.path.join(made, 'CMakeCache.txt')):
        command += ['-G', 'Ninja']
    try:
        subprocess.run(command, check=True)
        subprocess.run(['cmake', '--build', made, '--parallel'], check=True)
    except FileNotFoundError:
        refuse('cmake is not installed; README.md lists what a build needs')
    except subprocess.CalledProcessError as problem:
        refuse('the build failed (exit code %d); README.md lists what it needs' % problem.returncode)
    return os.path.join(made, 'bin', 'fairway')


def find_plugin(match, place):
    """A module that the INI names by its file: built, or carried as a binary."""
    carried = os.path.join(place, 'code', 'binaries', match.group(1))
    built = os.path.join(place, 'release', 'lib', 'fairway', 'v0', match.group(1))
    return carried if os.path.exists(carried) else built


def fill(place, options, dry):
    """The INI with the places of this machine."""
    text = re.sub('@PLUGINS@/([^ :\n]+)', lambda match: find_plugin(match, place), RECORD['ini'])
    for mark, value, option in (('@DATA@', options.data, '--data DIR'),
                                ('@TOKENIZER@', options.tokenizer, '--tokenizer FILE')):
        if mark not in text or dry and not value:
            continue
        if not value:
            refuse('the run needs %s' % option)
        if not os.path.exists(value):
            refuse('%s: there is no such file or directory' % value)
        text = text.replace(mark, os.path.abspath(value))
    path = os.path.join(place, 'run.ini')
    with open(path, 'w', encoding='utf-8') as file:
        file.write(text)
    return path


def run_command(program, ini, options):
    output = os.path.abspath(options.output or os.path.join('runs', 'seed-%d' % options.seed))
    return [program, 'run', ini, '--set', 'run.seed=%d' % options.seed, '--set', 'run.output=' + output]


def eval_command(program, ini):
    config = configparser.ConfigParser(delimiters='=', comment_prefixes=(';',), interpolation=None)
    config.read(ini, encoding='utf-8')
    source = config['data']['validation']
    if not source:
        refuse('--eval: this run held out training documents; train again to score it')
    command = [program, 'eval', '--artifact', os.path.join(HERE, RECORD['model']['file']), '--data', source]
    if ':' in source:
        for key, value in config['tokenizer'].items():
            option = {'plugin': '--tokenizer', 'model': '--model'}.get(key)
            command += [option, value] if option else ['--set', 'tokenizer.%s=%s' % (key, value)]
    return command


def parse():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default=os.environ.get('DATA_PATH'), help='directory of the data')
    parser.add_argument('--tokenizer', default=os.environ.get('TOKENIZER_PATH'), help='tokenizer model')
    parser.add_argument('--seed', type=int, default=int(os.environ.get('SEED', RECORD['seeds'][0])))
    parser.add_argument('--output', help='run directory (default: runs/seed-N)')
    parser.add_argument('--build', default=os.path.join(HERE, 'build'), help='where to unpack and build')
    parser.add_argument('--set', action='append', default=[], metavar='SECTION.KEY=VALUE')
    parser.add_argument('--eval', action='store_true', help='score the model in this folder')
    parser.add_argument('--dry-run', action='store_true', help='check and unpack, nothing more')
    return parser.parse_args()


def main():
    options = parse()
    if os.environ.get('RANK', '0') != '0':
        return 0  # under torchrun: the first process does everything
    total = check(RECORD['code']) + check(RECORD['model']) + os.path.getsize(os.path.abspath(__file__))
    code = unpack(options.build)
    ini = fill(options.build, options, options.dry_run)
    print('%s: %d bytes of code and model, of 16000000; hashes are right' % (RECORD['name'], total))
    if options.dry_run:
        print('%s and %s are unpacked; seeds recorded: %s' % (
            code, ini, ', '.join(str(seed) for seed in RECORD['seeds'])))
        return 0
    program = build(options.build, code)
    command = eval_command(program, ini) if options.eval else run_command(program, ini, options)
    binaries = os.path.join(code, 'binaries')  # of plugins that came without sources
    if os.path.isdir(binaries):
        command += ['--plugin-dir', binaries]
    for override in options.set:
        command += ['--set', override]
    print(' '.join(command), flush=True)
    return subprocess.run(command).returncode


if __name__ == '__main__':
    sys.exit(main())
