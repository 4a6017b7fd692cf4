"""What a run tells: metrics, the progress line, trackers, sample sheets, the records kept with it."""
