"""The run record, inbox, Delta store, quarantine and log readers; tasks × models interactions."""
