use super::*;

#[test]
fn every_task_runs_exactly_once() {
    for threads in [1, 2, 3, 8] {
        let mut pool = ThreadPool::new(threads);
        assert_eq!(pool.threads(), threads);
        for tasks in [0, 1, 2, 7, 1000] {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            pool.run(tasks, |task| {
                counts[task].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{threads} {tasks}");
        }
    }
}

#[test]
fn ranges_cover_the_whole_length() {
    let mut pool = ThreadPool::new(3);
    for (len, grain) in [(0, 4), (10, 3), (10, 100), (10, 0), (64, 16)] {
        let total = AtomicUsize::new(0);
        pool.parallel_for(len, grain, |range| {
            total.fetch_add(range.len(), Ordering::Relaxed);
        });
        assert_eq!(total.load(Ordering::Relaxed), len);
    }
}

/// Short jobs back to back, with pauses long enough that workers fall asleep now and then.
#[test]
fn stress() {
    let rounds = if cfg!(miri) { 20 } else { 5_000 };
    let mut pool = ThreadPool::new(4);
    let mut values = vec![0_u64; 257];
    for round in 0..rounds {
        pool.run_parts(Chunks::new(&mut values, 16), |_, part| part.iter_mut().for_each(|value| *value += 1));
        if round % 500 == 0 {
            std::thread::sleep(4 * SPIN);
        }
    }
    assert!(values.iter().all(|&value| value == rounds));
}

#[test]
fn tiles_are_disjoint_and_complete() {
    let mut pool = ThreadPool::new(3);
    let mut values = vec![0_u32; 7 * 10];
    pool.run_parts(Tiles::new(&mut values, 10, 2, 4), |index, mut tile| {
        for row in 0..tile.rows() {
            tile.row(row).iter_mut().for_each(|value| *value += 1 + index as u32);
        }
    });
    for (at, &value) in values.iter().enumerate() {
        let (row, col) = (at / 10, at % 10);
        assert_eq!(value as usize, 1 + row / 2 * 3 + col / 4, "row {row} column {col}");
    }
    pool.run_parts(Tiles::bands(&mut values, 10, 3), |index, mut band| {
        assert_eq!((band.rows(), band.first_row(), band.first_col()), (7, 0, index * 3));
        assert_eq!(band.row(6).len(), band.width());
    });
}

#[test]
fn scratch_belongs_to_one_thread() {
    let mut pool = ThreadPool::new(4);
    let mut locals = vec![0_usize; 4];
    let mut out = vec![0_u8; 1000];
    pool.run_parts_with(Chunks::new(&mut out, 1), &mut locals, |_, part, local| {
        part[0] = 1;
        *local += 1;
    });
    assert_eq!(locals.iter().sum::<usize>(), 1000);
    assert!(out.iter().all(|&value| value == 1));
}

#[test]
fn partitions_in_step() {
    let mut pool = ThreadPool::new(2);
    let (mut a, mut b) = (vec![0; 6], vec![0; 3]);
    pool.run_parts((Chunks::new(&mut a, 2), Chunks::new(&mut b, 1)), |index, (a, b)| {
        a.fill(index);
        b[0] = a.len();
    });
    assert_eq!((a, b), (vec![0, 0, 1, 1, 2, 2], vec![2, 2, 2]));
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_survives() {
    for threads in [1, 3] {
        let mut pool = ThreadPool::new(threads);
        for bad in [0, 50, 99] {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(100, |task| assert_ne!(task, bad, "task {task} is bad"));
            }));
            let payload = caught.expect_err("the panic of the task");
            let message = payload.downcast_ref::<String>().expect("a message");
            assert!(message.contains("is bad"), "{message}");
            let total = AtomicUsize::new(0);
            pool.run(100, |task| {
                total.fetch_add(task, Ordering::Relaxed);
            });
            assert_eq!(total.load(Ordering::Relaxed), 4950);
        }
    }
}

#[test]
fn dropping_sleeping_workers_ends_them() {
    let pool = ThreadPool::new(4);
    std::thread::sleep(4 * SPIN);
    drop(pool);
}
