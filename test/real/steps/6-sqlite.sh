# Thousands of transactions, in both journal modes and by two processes at once: locks, fsync, a shared writable map.
python3 - <<'PYTHON' >&3
import multiprocessing
import sqlite3

def count(path, times):
    database = sqlite3.connect(path, timeout=60, isolation_level=None)
    database.execute('pragma synchronous = off')
    for _ in range(times):
        database.execute('begin immediate')
        database.execute('update counter set value = value + 1')
        database.execute('commit')
    database.close()

for mode in 'delete', 'wal':
    path = f'/srv/{mode}.sqlite'
    database = sqlite3.connect(path)
    database.execute(f'pragma journal_mode = {mode}')
    database.execute('create table counter (value)')
    database.execute('insert into counter values (0)')
    database.execute('create table line (id integer primary key, word text)')
    database.execute('create index by_word on line (word)')
    database.commit()
    for number in range(300):  # each synced
        database.execute('insert into line (word) values (?)', (f'{number * 7919 % 1000:03} {"x" * 200}',))
        database.commit()
    database.execute('delete from line where id % 3 = 0')
    database.commit()
    writers = [multiprocessing.Process(target=count, args=(path, 1000)) for _ in range(2)]
    for writer in writers: writer.start()
    for writer in writers: writer.join()
    print(mode, [writer.exitcode for writer in writers], *database.execute('select value from counter').fetchone())
    print(
        *database.execute('pragma integrity_check').fetchone(),
        *database.execute('select count(*), sum(id), max(word) from line').fetchone())
    database.execute('vacuum')
    database.close()
PYTHON
ls /srv/*.sqlite* >&3
